"""Merging finished experts: nothing is trained, the gate is calibrated, and what came of it is measured."""

import json

import pytest
import torch
import yaml

import moeframe
from moeframe.assembly import assemble
from moeframe.errors import InputError
from moeframe.plugin.registry import Registry
from moeframe.runs.remeasure import evaluate
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.training.calibration import calibration_errors


def test_a_merge_leaves_a_run_folder_whose_model_can_be_loaded(merged):
    folder, results = merged
    assert {path.name for path in folder.iterdir()} >= {"spec.yaml", "card.json", "results.json", "report.html"}
    assert results.metrics["network_calls"].mean == 4, "one expert at each of four steps"
    loaded = moeframe.load(folder)
    assert loaded.sample(3).shape == (3, 1, 4, 4)
    assert [expert.config.best_at for expert in loaded.experts] == [-2.0, 3.0]


def test_auto_is_what_the_experts_errors_on_training_images_say_and_is_kept(merged):
    folder, results = merged
    loaded = moeframe.load(folder)
    (eta,) = loaded.gate.switches
    assembly = assemble(loaded.spec, Registry.installed(), 0)
    assembly.model.gate.calibrate(calibration_errors(assembly, assembly.model))
    assert assembly.model.gate.switches == (eta,)
    assert -2 < eta < 3
    stored = checkpoint.load(checkpoint.latest(RunFolder(folder).checkpoints(0)))
    assert stored.step == 0
    assert (
        stored.tensors["model"]["gate.thresholds"].tolist()
        == stored.tensors["ema"]["gate.thresholds"].tolist()
        == [eta]
    )
    assert results.metrics["bits_per_dim"].how["switches_at_log_snr"] == [eta]
    assert json.loads((folder / "seed-0/diagnostics.json").read_text())["switches"] == [eta]
    assert f"The gate switches at log-SNR {eta:.3f}." in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_merge_done_again_changes_nothing(merged, spec, tmp_path):
    folder, results = merged
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert moeframe.merge(spec, out=folder) == results
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert moeframe.run(spec, out=tmp_path / "run") == results, "merging is a run of no steps"


@pytest.mark.slow
def test_a_merge_can_be_evaluated_again_at_the_same_switch(merged, spec, tmp_path):
    moeframe.merge(spec, out=tmp_path / "run")
    again = evaluate(tmp_path / "run", overrides=["metrics=[{type: bits_per_dim, repeats: 1}]"])
    assert again.metrics["bits_per_dim"] == merged[1].metrics["bits_per_dim"]


@pytest.mark.slow
def test_a_run_older_than_a_setting_can_be_evaluated(spec, tmp_path):
    folder = tmp_path / "run"
    moeframe.merge(spec, out=folder)
    stored = yaml.safe_load((folder / "spec.yaml").read_text())
    del stored["training"]["calibration_images"]
    (folder / "spec.yaml").write_text(yaml.safe_dump(stored))
    assert list(evaluate(folder, overrides=["metrics=[{type: parameters}]"]).metrics) == ["parameters"]


@pytest.mark.slow
def test_the_calibrated_merge_has_fewer_bits_than_either_expert(merged, spec, tmp_path):
    merge = merged[1].metrics["bits_per_dim"].mean
    for eta in (-5.99, 5.99):
        alone = moeframe.merge(spec, overrides=[f"gate.eta={eta}"], out=tmp_path / str(eta))
        assert alone.metrics["bits_per_dim"].mean > merge + 1e-3


def test_a_spec_that_trains_experts_is_refused_by_merge(spec):
    with pytest.raises(InputError) as caught:
        moeframe.merge(spec, overrides=["training={steps: 5}", "gate.eta=0", "training.warm_start=0"])
    assert str(caught.value) == (
        f"{spec}: trains the experts for 5 steps, but merge keeps their weights; set "
        "training.trainable: none, or gate to train the gate alone, or train everything with `moeframe run`"
    )


@pytest.mark.slow
def test_merge_trains_a_gate_alone(spec, tmp_path):
    overrides = ["gate={type: softmax, width: 4}", "training={trainable: gate, steps: 3, batch_size: 8}"]
    moeframe.merge(spec, overrides=overrides, out=tmp_path / "gate")
    loaded = moeframe.load(tmp_path / "gate")
    assert float(loaded.gate.encoder.head[-1].weight.detach().abs().max()) > 0, "an untrained gate's last layer is zero"
    assert [expert.config.best_at for expert in loaded.experts] == [-2.0, 3.0]


@pytest.mark.parametrize(
    "gate",
    [
        "{type: switch}",
        "{type: switch, eta: 0.5}",
        "{type: fixed, thresholds: [0], weights: [[0.3, 0.7], [1, 0]]}",
        "{type: uniform}",
        "{type: softmax}",
        "{type: top_k, k: 1}",
        "{type: random}",
    ],
)
def test_two_equal_experts_merge_to_themselves_under_every_gate(gate, spec):
    equal = ["experts=[{type: stated, copies: 2}]", f"gate={gate}"]
    assembly = assemble(load_spec(spec, Registry.installed(), equal), Registry.installed(), 0)
    model = assembly.model.eval()
    if model.gate.needs_calibration:
        model.gate.calibrate(calibration_errors(assembly, model))
    z, log_snr = assembly.streams.normal((8, 1, 4, 4), "z"), torch.linspace(-6, 6, 8)
    items = moeframe.Trajectories.numbered(assembly.streams, 0, 8)
    expected = model.alone(0)(z, log_snr).velocity
    assert torch.allclose(model(z, log_snr, items).velocity, expected, atol=1e-5)


def test_experts_that_are_valid_on_a_part_of_the_range_are_merged_measured_and_shown(spec, tmp_path):
    parts = "[{type: stated, best_at: -2, valid: [-100, 1]}, {type: stated, best_at: 3, valid: [-1, 100]}]"
    folder = tmp_path / "run"
    overrides = [f"experts={parts}", "gate={type: switch, eta: 0.0}", "slicer={type: color_variance}"]
    results = moeframe.merge(spec, overrides=overrides, out=folder)
    assert results.metrics["bits_per_dim"].mean > 0
    found = json.loads((folder / "seed-0/diagnostics.json").read_text())
    bound = found["bound_by_log_snr"]
    for values, valid in zip(bound["experts"], ((-100, 1), (-1, 100)), strict=True):
        inside = [valid[0] <= at <= valid[1] for at in bound["log_snr"]]
        assert [value is not None for value in values] == inside
    assert found["expert_slice_bits"]["matrix"] == [[None, None], [None, None]]
    assert None not in found["expert_slice_bits"]["merged"]
    assert (folder / "report.html").exists()


def test_the_card_lists_every_expert_with_what_it_says_of_its_weights(merged):
    folder, _ = merged
    card = json.loads((folder / "card.json").read_text())
    assert card["experts"] == [
        {"number": 0, "type": "stated", "valid_log_snr": "-100 to 100", "outside": "error"},
        {
            "number": 1,
            "type": "stated",
            "source": "a test",
            "licence": "CC BY-NC 4.0",
            "valid_log_snr": "-100 to 100",
            "outside": "error",
            "warning": "expert 1 (stated): its weights are licensed under CC BY-NC 4.0: they and any merge "
            "that contains them must not be used commercially",
        },
    ]
    report = (folder / "report.html").read_text()
    assert "<summary>Experts</summary>" in report
    assert report.count(f'<p class="why">{card["experts"][1]["warning"]}</p>') == 1
    assert report.count(card["experts"][1]["warning"]) == 1, "said once"


@pytest.mark.slow
def test_a_run_that_trains_its_experts_has_no_section_about_their_licences(tiny_spec, tmp_path):
    moeframe.run(tiny_spec, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/card.json").read_text())["experts"] == [
        {"number": 0, "type": "unet"},
        {"number": 1, "type": "unet"},
    ]
    assert "<summary>Experts</summary>" not in (tmp_path / "run/report.html").read_text()
