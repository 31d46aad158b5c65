"""The built-in metrics: values against direct calls and closed forms, and what they state beside the value."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moeframe.assembly import assemble
from moeframe.errors import UnavailableError
from moeframe.evaluation import ModelEvaluation, measure
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.metric import Evaluation, Reconstructions
from moeframe.randomness import Streams
from moeframe.registry import Registry
from moeframe.spec import bind
from moeframe_builtin.metrics.bits_per_dim import BitsPerDimMetric
from moeframe_builtin.metrics.cost import LatencyMetric, NetworkCallsMetric, ParametersMetric, PeakMemoryMetric
from moeframe_builtin.metrics.frechet import FrechetMetric, frechet_distance
from moeframe_builtin.metrics.reconstruction import PsnrMetric, SsimMetric


def evaluation_of(registry: Registry, folder: Path, **changes: Any) -> ModelEvaluation:
    data = {
        "name": "metrics",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 8, "std": 0.3, "n_train": 40, "n_test": 24},
        "slicer": {"type": "color_variance"},
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "copies": 4, "channels": 4}],
        "gate": {"type": "top_k", "k": 2, "width": 4},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 5},
        **changes,
    }
    assembly = assemble(bind(data, registry), registry, seed=0)
    return ModelEvaluation(assembly, assembly.model, folder)


@pytest.fixture(scope="module")
def sparse(registry, tmp_path_factory) -> ModelEvaluation:
    """Four untrained experts, two of which are asked."""
    return evaluation_of(registry, tmp_path_factory.mktemp("sparse"))


class Pairs(Evaluation):
    """Nothing but reconstructions."""

    def __init__(self, originals: torch.Tensor, images: torch.Tensor, levels: int):
        self.image = ImageShape(*originals.shape[1:], levels)
        self.pairs = (originals, images)

    def sample_batches(self, n):
        raise NotImplementedError

    def once(self, key, compute):
        return compute()

    def test_batches(self, n):
        raise NotImplementedError

    def pixels(self, levels):
        raise NotImplementedError

    def reconstructions(self, log_snr, n):
        return Reconstructions(self.pairs[0][:n], self.pairs[1][:n], log_snr)


def pairs(n: int = 4, shape: tuple[int, int, int] = (3, 16, 20), levels: int = 256) -> Pairs:
    originals = (Streams(0).uniform((n, *shape), "originals") * levels).long()
    noise = (Streams(0).normal((n, *shape), "noise") * levels / 10).long()
    return Pairs(originals, (originals + noise).clamp(0, levels - 1), levels)


# bits_per_dim


def test_the_value_is_the_sum_of_its_parts_and_lies_in_its_interval(sparse):
    found = BitsPerDimMetric(BitsPerDimMetric.Config()).measure(sparse)
    assert found.value == pytest.approx(sum(found.parts[part] for part in ("reconstruction", "prior", "diffusion")))
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.value)
    assert (high - low) / 2 == pytest.approx(1.96 * found.parts["standard_error"])
    assert found.n == found.how["images"] == 24
    assert found.how["log_snr_range"] == [-10.0, 10.0]
    assert found.how["uniform_model"] == 8.0


def test_more_repeats_lower_the_monte_carlo_error(sparse):
    few, many = (BitsPerDimMetric(BitsPerDimMetric.Config(repeats=r)).measure(sparse) for r in (4, 64))
    assert many.parts["monte_carlo_error"] < 0.6 * few.parts["monte_carlo_error"]
    assert abs(many.value - few.value) < 4 * few.parts["monte_carlo_error"]


def test_each_repeat_draws_its_own_noise(sparse):
    two, three = (BitsPerDimMetric(BitsPerDimMetric.Config(repeats=r)).measure(sparse) for r in (2, 3))
    assert two.parts["reconstruction"] != three.parts["reconstruction"]  # which no time enters, only the noise


def test_the_bound_does_not_depend_on_the_batch_size(registry, sparse, tmp_path):
    other = evaluation_of(registry, tmp_path, evaluation={"batch_size": 5})
    one, two = (BitsPerDimMetric(BitsPerDimMetric.Config()).measure(e) for e in (sparse, other))
    assert one.value == pytest.approx(two.value, rel=1e-5)


def test_an_untrained_network_codes_no_better_than_the_data_allow(sparse):
    found = BitsPerDimMetric(BitsPerDimMetric.Config()).measure(sparse)
    assert found.value > sparse.assembly.dataset.entropy_bits_per_dim


# frechet


def test_the_frechet_distance_is_its_formula():
    from scipy.linalg import sqrtm

    first = Streams(0).normal((300, 6), "first").double()
    second = 1.5 * Streams(0).normal((200, 6), "second").double() + torch.arange(6) / 5
    means = [f.mean(0).numpy() for f in (first, second)]
    covariances = [np.cov(f.numpy(), rowvar=False) for f in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_gaussians_nears_the_closed_form_as_samples_grow():
    """‖μ1 - μ2‖² + Σ (σ1 - σ2)² of independent features, from above."""
    scale, shift = torch.tensor([0.5, 1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 0.0, 0.5])
    closed = float((shift**2).sum() + ((scale - 1) ** 2).sum())
    errors = []
    for n in (100, 1000, 20_000):
        first = Streams(1).normal((n, 4), "first", n)
        errors.append(abs(frechet_distance(first, scale * Streams(1).normal((n, 4), "second", n) + shift) / closed - 1))
    assert errors[-1] < 0.03
    assert errors[-1] < errors[0]


@pytest.mark.slow
def test_frechet_states_its_floor_its_sizes_and_that_it_is_no_fid(sparse):
    found = FrechetMetric(FrechetMetric.Config(input_size=32)).measure(sparse)
    assert found.n == found.how["samples"] == 24
    assert found.parts["real_against_real"] > 0
    assert found.value > found.parts["real_against_real"]  # samples of an untrained network
    assert found.how["real_against_real"].startswith("24 training images against the first 24 test images")
    assert "not an FID" in found.how["caution"]
    assert len(found.how["weights_sha256"]) == 64
    assert "FID" not in found.unit


def test_frechet_without_its_packages_names_them_and_how_to_get_them(monkeypatch, sparse):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch_fidelity" else real(name, *rest)
    )
    metric = FrechetMetric(FrechetMetric.Config())
    assert metric.unavailable() == "torch_fidelity not installed; pip install 'moeframe[quality]'"
    assert measure(metric, sparse) == {"unavailable": metric.unavailable()}


# psnr and ssim


@pytest.mark.parametrize(("shape", "levels"), [((3, 16, 20), 256), ((1, 28, 28), 256), ((1, 12, 12), 17)])
def test_psnr_is_the_mean_of_scikit_images(shape, levels):
    from skimage.metrics import peak_signal_noise_ratio

    given = pairs(shape=shape, levels=levels)
    direct = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=levels - 1) for a, b in zip(*given.pairs, strict=True)
    ]
    found = PsnrMetric(PsnrMetric.Config()).measure(given)
    assert found.value == pytest.approx(np.mean(direct), rel=1e-9)
    assert (found.unit, found.better, found.n) == ("dB", "higher", 4)


@pytest.mark.parametrize(("shape", "levels"), [((3, 16, 20), 256), ((1, 28, 28), 256), ((1, 12, 12), 17)])
def test_ssim_is_the_mean_of_scikit_images_with_the_settings_of_wang(shape, levels):
    from skimage.metrics import structural_similarity

    given = pairs(shape=shape, levels=levels)
    direct = [
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=levels - 1,
            channel_axis=0,
        )
        for a, b in zip(*given.pairs, strict=True)
    ]
    found = SsimMetric(SsimMetric.Config()).measure(given)
    assert found.value == pytest.approx(np.mean(direct), rel=1e-9)
    assert found.better == "higher"
    assert "note" not in found.how


def test_ssim_of_images_smaller_than_its_window_says_so():
    found = SsimMetric(SsimMetric.Config()).measure(pairs(shape=(1, 8, 8), levels=17))
    assert math.isfinite(found.value)
    assert "smaller than the window" in found.how["note"]


def test_equal_images_have_an_ssim_of_one_and_no_psnr():
    given = pairs()
    same = Pairs(given.pairs[0], given.pairs[0], 256)
    assert SsimMetric(SsimMetric.Config()).measure(same).value == pytest.approx(1)
    with pytest.raises(UnavailableError, match=r"4 of 4 reconstructions are exact.*; set a lower log_snr"):
        PsnrMetric(PsnrMetric.Config()).measure(same)


def test_an_exact_reconstruction_is_left_out_of_the_psnr_and_counted():
    given = pairs()
    given.pairs[1][1] = given.pairs[0][1]
    found = PsnrMetric(PsnrMetric.Config()).measure(given)
    assert (found.n, found.how["exact_left_out"]) == (3, 1)


# cost


def size_of(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_active_for_two_of_four_experts_are_fewer_than_all(sparse):
    found = ParametersMetric(ParametersMetric.Config()).measure(sparse)
    gate, expert = size_of(sparse.gate), size_of(sparse.experts[0])
    assert found.value == gate + 4 * expert == size_of(sparse.model)
    assert found.parts["active_per_sample"] == pytest.approx(gate + 2 * expert)
    assert found.parts["gate"] == gate
    assert found.parts["largest_expert"] == expert


def test_a_soft_gate_has_all_parameters_active(registry, tmp_path):
    dense = evaluation_of(registry, tmp_path, gate={"type": "softmax", "width": 4})
    found = ParametersMetric(ParametersMetric.Config()).measure(dense)
    assert found.parts["active_per_sample"] == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, 2 * 5),
        ({"gate": {"type": "softmax", "width": 4}}, 4 * 5),
        ({"gate": {"type": "random"}}, 5),
        ({"sampler": {"type": "heun", "steps": 5}}, 2 * (2 * 5 - 1)),
        ({"sampler": {"type": "ancestral", "steps": 7}}, 2 * 7),
        ({"experts": [{"type": "unet", "channels": 4}], "gate": None, "slicer": None}, 5),
    ],
)
def test_network_calls_are_k_per_step_and_image(registry, changes, calls, tmp_path):
    found = NetworkCallsMetric(NetworkCallsMetric.Config(batch_size=3)).measure(
        evaluation_of(registry, tmp_path, **changes)
    )
    assert found.value == calls
    assert found.n == 3


def test_latency_is_a_median_between_its_quartiles(sparse):
    found = LatencyMetric(LatencyMetric.Config(batch_size=2, repeats=3)).measure(sparse)
    assert 0 < found.parts["lower_quartile"] <= found.value <= found.parts["upper_quartile"]
    assert {"device", "torch", "torch_threads", "batch_size", "sampler", "statistic"} <= found.how.keys()
    assert not LatencyMetric.DETERMINISTIC


def test_peak_memory_is_at_least_what_was_in_use_before(sparse):
    found = PeakMemoryMetric(PeakMemoryMetric.Config(batch_size=2)).measure(sparse)
    assert found.value >= found.parts["before_sampling"] > 0
    assert "resident set" in found.how["source"]
