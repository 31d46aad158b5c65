"""Samples are drawn once, in order, and never mixed with those of another model."""

import math
import weakref

import pytest
import torch
import yaml

from moeframe.assembly import assemble
from moeframe.diffusion import to_pixels
from moeframe.errors import NonFiniteError, RangeError, UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.interfaces.sampler import SamplerState
from moeframe.spec.binding import bind
from moeframe.storage.sample_store import Samples, SampleStore
from moeframe_builtin.metrics.psnr import PsnrMetric
from moeframe_builtin.metrics.support.sampling_run import sample_once
from moeframe_builtin.samplers.ddim import DdimSampler


class Drawer:
    """Draws numbered samples and notes which it was asked for; number 5 is not finite."""

    def __init__(self):
        self.asked = []

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        pixels = torch.arange(start, stop).view(-1, 1, 1, 1).float().expand(-1, 1, 2, 2) / 128 - 1 + 1 / 256
        return Samples.of_pixels(torch.where(torch.arange(start, stop).view(-1, 1, 1, 1) == 5, math.nan, pixels), 256)


def levels(store, n):
    return torch.cat([batch.levels for batch in store.batches(n)])[:, 0, 0, 0].tolist()


def test_samples_are_drawn_once_and_read_back(tmp_path):
    draw = Drawer()
    store = SampleStore(tmp_path, "a", 4, draw)
    first = levels(store, 10)
    assert first == [0, 1, 2, 3, 4, 0, 6, 7, 8, 9]
    assert draw.asked == [(0, 4), (4, 8), (8, 10)]
    assert levels(SampleStore(tmp_path, "a", 4, draw), 10) == first
    assert len(draw.asked) == 3


def test_more_samples_continue_the_last_block(tmp_path):
    draw = Drawer()
    store = SampleStore(tmp_path, "a", 4, draw)
    levels(store, 3)
    assert levels(store, 6) == [0, 1, 2, 3, 4, 0]
    assert draw.asked == [(0, 3), (3, 4), (4, 6)]


def test_samples_of_another_model_are_drawn_anew(tmp_path):
    levels(SampleStore(tmp_path, "a", 4, Drawer()), 8)
    draw = Drawer()
    levels(SampleStore(tmp_path, "b", 4, draw), 8)
    assert draw.asked == [(0, 4), (4, 8)]


def test_blocks_of_another_length_are_never_taken_for_others(tmp_path):
    assert levels(SampleStore(tmp_path, "a", 4, Drawer()), 8) == levels(SampleStore(tmp_path, "a", 3, Drawer()), 8)


def test_a_damaged_block_is_drawn_anew(tmp_path):
    store = SampleStore(tmp_path, "a", 4, Drawer())
    whole = levels(store, 8)
    path = tmp_path / "00000004.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert levels(store, 8) == whole


def test_a_sample_that_is_not_finite_is_marked(tmp_path):
    batches = list(SampleStore(tmp_path, "a", 4, Drawer()).batches(8))
    assert torch.cat([batch.finite for batch in batches]).tolist() == [i != 5 for i in range(8)]


def test_every_level_of_a_sample_survives():
    every = torch.arange(256).view(256, 1, 1, 1)
    assert torch.equal(Samples.of_pixels(to_pixels(every, 256), 256).levels, every)


def test_pixels_beyond_the_range_become_the_outermost_levels():
    pixels = torch.tensor([-1.7, -1.001, 1.001, 1.7]).view(4, 1, 1, 1)
    assert Samples.of_pixels(pixels, 256).levels.flatten().tolist() == [0, 0, 255, 255]


@pytest.fixture
def make_evaluation(tmp_path, tiny_text, registry):
    def make(*, seed=0, std=0.0, **sections):
        spec = bind({**yaml.safe_load(tiny_text), **sections}, registry)
        assembly = assemble(spec, registry, seed)
        with torch.no_grad():
            for parameter in assembly.model.parameters():
                parameter.add_(std)
        return ModelEvaluation(assembly, assembly.model, tmp_path)

    return make


def test_the_same_model_reads_what_it_drew_before(make_evaluation, tmp_path):
    first = torch.cat(list(make_evaluation().sample_batches(6)))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()}
    assert len(written) == 2
    assert torch.equal(torch.cat(list(make_evaluation().sample_batches(6))), first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()} == written


@pytest.mark.parametrize(
    "change",
    [{"std": 0.1}, {"seed": 1}, {"sampler": {"type": "ddim", "steps": 3}}, {"schedule": {"type": "cosine"}}],
)
def test_other_weights_seeds_samplers_and_schedules_draw_their_own(make_evaluation, change):
    first = torch.cat(list(make_evaluation(std=0.01).sample_batches(4)))
    other = torch.cat(list(make_evaluation(**{"std": 0.01, **change}).sample_batches(4)))
    assert not torch.equal(first, other)


def test_samples_do_not_depend_on_how_many_are_drawn_at_a_time(make_evaluation):
    single = {"batch_size": 1, "samples_shown": 2, "diagnostic_images": 4}
    one_by_one = torch.cat(list(make_evaluation(std=0.01, evaluation=single).sample_batches(5)))
    assert torch.equal(torch.cat(list(make_evaluation(std=0.01).sample_batches(5))), one_by_one)


def test_no_state_of_a_trajectory_is_kept_but_the_last(make_evaluation, monkeypatch):
    """Else as many images as there are steps would be in memory, and peak_memory that of all of them."""
    seen, most = [], 0

    def walk(sampler, denoiser, noise, *_):
        nonlocal most
        for step in range(20):
            z = torch.full_like(noise, step / 20)
            seen.append(weakref.ref(z))
            most = max(most, sum(each() is not None for each in seen))
            yield SamplerState(z, z, math.inf, step)

    monkeypatch.setattr(DdimSampler, "trajectory", walk)
    evaluation = make_evaluation()
    list(evaluation.sample_batches(4))
    assert sample_once(evaluation, 4).network_calls == 19
    assert 1 <= most <= 3


def test_samples_are_drawn_without_dropout(make_evaluation):
    network = {"type": "unet", "copies": 2, "channels": 4, "channel_multipliers": [1], "dropout": 0.5}
    evaluation = make_evaluation(std=0.1, experts=[network])
    first, again = (list(evaluation.trajectory(0, 4))[-1].z for _ in range(2))
    assert torch.equal(first, again)


def test_samples_that_are_not_finite_are_counted_and_no_metric_gets_them(make_evaluation):
    evaluation = make_evaluation(std=math.nan)
    with pytest.raises(UnavailableError) as error:
        list(evaluation.sample_batches(6))
    assert str(error.value).startswith(
        "6 of 6 samples have pixels that are NaN or infinite (numbers 0, 1, 2, 3, 4 ...)"
    )
    shown = evaluation.shown_samples(6)
    assert (shown.levels.shape, shown.broken) == ((6, 1, 4, 4), 6)


def test_reconstructions_that_are_not_finite_are_counted_and_no_metric_gets_them(make_evaluation):
    evaluation = make_evaluation(std=math.nan)
    text = r"4 of 4 reconstructions from log-SNR 0 have pixels that are NaN or infinite \(numbers 0, 1, 2, 3\)"
    with pytest.raises(UnavailableError, match=text):
        evaluation.reconstructions(0.0, 4)
    shown = evaluation.shown_reconstructions(0.0, 4)
    assert (shown.levels.shape, shown.broken) == ((4, 1, 4, 4), 4)
    entry = measure(PsnrMetric(PsnrMetric.Config(images=4, curve=[])), evaluation)
    assert entry["unavailable"].startswith("4 of 4 reconstructions from log-SNR 0")


@pytest.mark.parametrize("error", [NonFiniteError, RangeError, UnavailableError])
def test_a_metric_that_meets_numbers_without_end_leaves_the_others_alone(make_evaluation, monkeypatch, error):
    def failing(self, evaluation):
        raise error("the velocity at log-SNR 3 is not finite")

    monkeypatch.setattr(PsnrMetric, "measure", failing)
    entry = measure(PsnrMetric(PsnrMetric.Config()), make_evaluation())
    assert entry == {"unavailable": "the velocity at log-SNR 3 is not finite"}


def test_a_few_test_images_are_drawn_at_random_the_same_for_every_seed_and_all_are_in_order(make_evaluation):
    first, other = make_evaluation(seed=0), make_evaluation(seed=1)
    n = len(first.test)
    assert first.assembly.test_numbers(None).tolist() == list(range(n)) == first.assembly.test_numbers(n).tolist()
    four, two = (first.assembly.test_numbers(k).tolist() for k in (4, 2))
    assert four == other.assembly.test_numbers(4).tolist() != list(range(4))
    assert four[:2] == two
    assert len(set(four)) == 4
    images = torch.cat([levels for _, levels in first.test_batches(4)])
    assert torch.equal(images, first.test.images(torch.tensor(four)).long())
    assert torch.equal(first.reconstructions(0.0, 4).originals, images)


def test_what_metrics_share_is_computed_once(make_evaluation):
    evaluation, calls = make_evaluation(), []
    for _ in range(2):
        assert evaluation.once(("features", 3), lambda: calls.append(1) or "result") == "result"
    assert evaluation.once(("features", 4), lambda: "other") == "other"
    assert len(calls) == 1
