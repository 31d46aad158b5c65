"""Merging finished experts: nothing is trained, the gate is calibrated, and what came of it is measured."""

import json
from itertools import chain, islice

import pytest
import torch
import yaml
from click.testing import CliRunner

import moeframe
from moeframe import cli
from moeframe.assembly import assemble
from moeframe.errors import InputError, SpecError
from moeframe.interfaces.gate import Gate
from moeframe.plugin.discovery import installed_entry_points
from moeframe.plugin.registry import Registry
from moeframe.report.run.trade_off import SweepPoint, SweptSeed
from moeframe.runs.pipeline import evaluate
from moeframe.runs.sweep import _comparisons, sweep
from moeframe.spec.loader import load_spec
from moeframe.stats.comparison import compare_paired, holm
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.training.calibration import calibration_errors
from moeframe.training.trainer import Trainer

MERGE = """\
name: merged
device: cpu
dataset: {type: gaussian, size: 4, levels: 8, n_train: 64, n_test: 32}
schedule: {type: linear, log_snr_min: -6, log_snr_max: 6}
experts:
  - {type: stated, best_at: -2.0}
  - {type: stated, best_at: 3.0, licence: CC BY-NC 4.0}
gate: {type: switch}
objective: [{type: nll}]
sampler: {type: ddim, steps: 4}
metrics: [{type: bits_per_dim, repeats: 1}, {type: network_calls}, {type: psnr, images: 8}]
training: {trainable: none}
evaluation: {batch_size: 16, samples_shown: 2, diagnostic_images: 8}
"""


@pytest.fixture(scope="module", autouse=True)
def stated_expert_installed(on_disk):
    """The expert of tests/plugins_on_disk, beside what is installed."""
    points = [*installed_entry_points(), on_disk("stated_expert")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moeframe.plugin.discovery.installed_entry_points", lambda: points)
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("merge") / "merged.yaml"
    path.write_text(MERGE)
    return path


@pytest.fixture(scope="module")
def merged(spec):
    folder = spec.parent / "run"
    return folder, moeframe.merge(spec, out=folder)


def errors_of_spec(path, *overrides):
    with pytest.raises(SpecError) as caught:
        load_spec(path, Registry.installed(), overrides)
    return {problem.path: problem.message for problem in caught.value.problems}


# --- merge ------------------------------------------------------------------------------------------------------------


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
        f"{spec}: trains the experts for 5 steps, and merge leaves them as they are; set "
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


# --- what is trained --------------------------------------------------------------------------------------------------

GATE_ONLY = ("training={trainable: gate, steps: 6, batch_size: 8, validation_images: 4}", "experts.0.dropout=0.2")


def gate_trainer(path, *overrides):
    registry = Registry.installed()
    return Trainer(assemble(load_spec(path, registry, (*GATE_ONLY, *overrides)), registry, 0))


def test_a_trainable_gate_leaves_every_expert_bit_identical(tiny_spec):
    run = gate_trainer(tiny_spec)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    logs = list(chain(run.warm_start(), run.train_jointly()))
    assert [log.phase for log in logs] == ["joint"] * 6
    for state in (run.model.state_dict(), run.averaged.state_dict()):
        assert all(torch.equal(state[name], before[name]) for name in before if name.startswith("experts"))
    assert not any(parameter.requires_grad for parameter in run.model.experts.parameters())
    assert not run.model.experts.training, "frozen experts answer without dropout"
    assert run.model.gate.training


def test_a_trainable_gate_learns(spec):
    registry = Registry.installed()
    overrides = ["gate={type: softmax, width: 4}", "training={trainable: gate, steps: 6, batch_size: 8}"]
    run = Trainer(assemble(load_spec(spec, registry, overrides), registry, 0))
    before = {name: tensor.clone() for name, tensor in run.model.gate.state_dict().items()}
    list(run.train_jointly())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.model.gate.state_dict().items())


def test_gate_only_training_cut_and_resumed_is_bit_equal(tiny_spec, tmp_path):
    whole = gate_trainer(tiny_spec)
    list(whole.train_jointly())
    first = gate_trainer(tiny_spec)
    list(islice(first.train_jointly(), 2))
    kept = checkpoint.save(tmp_path, first.snapshot())
    second = gate_trainer(tiny_spec)
    second.restore(checkpoint.load(kept))
    list(second.train_jointly())
    for one, other in ((whole.model, second.model), (whole.averaged, second.averaged)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_without_anything_to_train_the_state_is_saved_and_read_all_the_same(spec, tmp_path):
    registry = Registry.installed()
    run = Trainer(assemble(load_spec(spec, registry), registry, 0))
    run.restore(checkpoint.load(checkpoint.save(tmp_path, run.snapshot())))
    assert run.step == 0
    assert list(chain(run.warm_start(), run.train_jointly())) == []


def test_trainable_none_means_no_steps_where_none_are_given(tiny_text, tmp_path):
    data = {**yaml.safe_load(tiny_text), "training": {"trainable": "none"}}
    path = tmp_path / "none.yaml"
    path.write_text(yaml.safe_dump(data))
    spec = load_spec(path, Registry.installed())
    assert (spec.training.steps, spec.warm_start_steps) == (0, 0)
    path.write_text(yaml.safe_dump(spec.dump()))
    assert load_spec(path, Registry.installed()) == spec


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (
            ["training.trainable=none"],
            {"training.steps": "nothing is trainable, so 4 steps do nothing; set steps: 0, or trainable: gate or all"},
        ),
        (
            ["training.trainable=gate", "training.warm_start=0.5", "slicer={type: class_group, groups: [[0], [1]]}"],
            {
                "training.warm_start": "the warm start trains the experts, which trainable: gate freezes; "
                "set warm_start: 0"
            },
        ),
        (
            ["training.trainable=gate", "gate={type: uniform}"],
            {
                "training.trainable": "gate 'uniform' has no parameters to train; use a gate that learns, "
                "or trainable: none"
            },
        ),
        (
            ["training.trainable=gate", "gate=null", "experts.0.copies=1"],
            {"training.trainable": "there is no gate to train; add a section 'gate', or set all or none"},
        ),
        (["training.trainable=experts"], {"training.trainable": "must be 'all', 'gate' or 'none', not 'experts'"}),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_said_by_the_spec(tiny_spec, overrides, found):
    assert errors_of_spec(tiny_spec, *overrides) == found


def test_a_gate_that_does_not_say_that_it_cannot_learn_is_found_out_before_training(tiny_spec, monkeypatch):
    registry = Registry.installed()
    monkeypatch.setattr(registry.get(Gate, "uniform"), "LEARNS", True)
    overrides = ["training.trainable=gate", "gate={type: uniform}"]
    with pytest.raises(InputError, match="nothing to train: no trainable part has parameters; set training.steps: 0"):
        Trainer(assemble(load_spec(tiny_spec, registry, overrides), registry, 0))


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


# --- provenance -------------------------------------------------------------------------------------------------------


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
            "warning": "expert 1 (stated): the licence of its weights is CC BY-NC 4.0: neither they nor a merge that "
            "holds them may be used commercially",
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


# --- sweep ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(spec):
    folder = spec.parent / "swept"
    arguments = ["merge", str(spec), "--out", str(folder), "--sweep", "3", "--quality", "psnr"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.mark.slow
def test_the_command_warns_of_a_non_commercial_licence_on_standard_error(swept):
    assert "warning: expert 1 (stated): the licence of its weights is CC BY-NC 4.0" in swept[1].stderr
    assert "warning" not in swept[1].stdout


def test_a_sweep_has_both_experts_the_merge_and_every_place(swept):
    folder, result = swept
    stored = json.loads((folder / "sweep.json").read_text())
    (eta,) = moeframe.load(folder).gate.switches
    assert [(point["name"], point["eta"]) for point in stored["points"]] == [
        ("expert 0 alone", None),
        ("expert 1 alone", None),
        ("merge", eta),
        ("switch", -3.0),
        ("switch", 0.0),
        ("switch", 3.0),
    ]
    assert "likelihood against quality by switch point" in result.stdout
    assert f"sweep: {folder / 'sweep.json'}, {folder / 'sweep.svg'}" in result.stdout.replace("\n", "")
    assert (folder / "sweep.svg").read_text().startswith("<svg")
    assert "Likelihood against quality" in (folder / "report.html").read_text()
    assert stored["quality_name"] == "psnr"
    assert "continuous bound of 32 test images, one draw each" in stored["how"]


@pytest.mark.slow
def test_the_points_of_a_sweep_are_what_merging_there_measures(swept, spec, tmp_path):
    folder, _ = swept
    points = json.loads((folder / "sweep.json").read_text())["points"]
    for point in points[3:5]:
        found = moeframe.merge(spec, overrides=[f"gate.eta={point['eta']}"], out=tmp_path / str(point["eta"]))
        assert found.metrics["psnr"].mean == pytest.approx(point["quality"], abs=1e-6)
        assert abs(found.metrics["bits_per_dim"].mean - point["bits_per_dim"]) < 4 * point["standard_error"]
    alone = ["experts=[{type: stated, best_at: -2.0}]", "gate=null"]
    found = moeframe.merge(spec, overrides=alone, out=tmp_path / "alone")
    assert found.metrics["psnr"].mean == pytest.approx(points[0]["quality"], abs=1e-6)


def test_the_pareto_set_of_a_sweep_is_marked(swept):
    points = json.loads((swept[0] / "sweep.json").read_text())["points"]
    for point in points:
        beaten = any(
            other["bits_per_dim"] <= point["bits_per_dim"]
            and other["quality"] >= point["quality"]
            and (other["bits_per_dim"], other["quality"]) != (point["bits_per_dim"], point["quality"])
            for other in points
        )
        assert point["pareto"] is not beaten
    assert 0 < sum(point["pareto"] for point in points) < len(points)


@pytest.mark.slow
def test_measuring_anew_forgets_the_sweep_that_was_measured_otherwise(swept, spec, tmp_path):
    moeframe.merge(spec, out=tmp_path / "run")
    sweep(tmp_path / "run", 1, quality="psnr")
    evaluate(tmp_path / "run", overrides=["sampler.steps=3"])
    assert not (tmp_path / "run/sweep.json").exists()
    assert "Likelihood against quality" not in (tmp_path / "run/report.html").read_text()


def test_a_sweep_needs_a_metric_of_the_spec(merged):
    with pytest.raises(InputError) as caught:
        sweep(merged[0], 2)
    assert str(caught.value) == (
        "the spec of 'merged' has no metric 'frechet' to measure quality with; its metrics are bits_per_dim, "
        "network_calls, psnr: name one of them with --quality, or add it to the spec"
    )


@pytest.mark.slow
def test_a_sweep_needs_two_experts_and_a_gate_that_switches(spec, tmp_path):
    few = ["metrics=[{type: psnr, images: 4}]"]
    moeframe.merge(spec, overrides=[*few, "gate={type: uniform}"], out=tmp_path / "uniform")
    with pytest.raises(InputError, match="gate 'uniform' does not switch between experts by log-SNR alone"):
        sweep(tmp_path / "uniform", 2, quality="psnr")
    moeframe.merge(spec, overrides=[*few, "experts.0.copies=2"], out=tmp_path / "three")
    with pytest.raises(InputError, match="a sweep moves the switch between two experts; 'merged' has 3"):
        sweep(tmp_path / "three", 2, quality="psnr")


def test_a_sweep_refuses_an_expert_whose_numbers_bound_nothing(spec, tmp_path):
    moeframe.merge(spec, overrides=["experts.1.sees_neighbours=true"], out=tmp_path / "run")
    with pytest.raises(InputError, match=r"^expert 1 alone has no bits/dim to sweep: .*batch"):
        sweep(tmp_path / "run", 2, quality="psnr")
    assert not (tmp_path / "run/sweep.json").exists()


@pytest.mark.slow
def test_a_sweep_over_several_seeds_gives_means_and_compares_the_merge_with_each_expert_seed_by_seed(spec, tmp_path):
    seeds = [0, 4, 7]
    moeframe.merge(spec, overrides=[f"seeds={seeds}"], out=tmp_path / "several")
    found = sweep(tmp_path / "several", 1, quality="psnr")
    points = {point.name: point for point in found.points}
    for point in found.points:
        assert [one.seed for one in point.seeds] == seeds
        assert point.bits_per_dim == pytest.approx(sum(one.bits_per_dim for one in point.seeds) / 3)
        low, high = point.bits_interval
        assert low < point.bits_per_dim < high
    for seed, own in zip(seeds, points["merge"].seeds, strict=True):
        moeframe.merge(spec, overrides=[f"seeds=[{seed}]"], out=tmp_path / str(seed))
        (merge,) = (point for point in sweep(tmp_path / str(seed), 1, quality="psnr").points if point.name == "merge")
        assert (merge.bits_per_dim, merge.quality, merge.eta) == (own.bits_per_dim, own.quality, own.eta)
    assert [(one.against, one.figure, one.n) for one in found.comparisons] == [
        ("expert 0 alone", "bits_per_dim", 3),
        ("expert 0 alone", "quality", 3),
        ("expert 1 alone", "bits_per_dim", 3),
        ("expert 1 alone", "quality", 3),
    ]
    for one in found.comparisons:
        theirs = points[one.against]
        expected = getattr(points["merge"], one.figure) - getattr(theirs, one.figure)
        assert one.difference == pytest.approx(expected, abs=1e-12)
        assert (one.verdict, one.p_adjusted) == ("underpowered", None), "three seeds cannot show a difference"
    assert "Underpowered: fewer than 6 seeds." in (tmp_path / "several/report.html").read_text()


def test_the_comparisons_of_a_sweep_are_corrected_for_their_number():
    noise = [0.0, 0.1, -0.1, 0.05, -0.05, 0.02]

    def point(name, bits, quality):
        seeds = tuple(
            SweptSeed(seed=i, eta=None, bits_per_dim=b, quality=q)
            for i, (b, q) in enumerate(zip(bits, quality, strict=True))
        )
        return SweepPoint(name=name, eta=None, bits_per_dim=0, standard_error=0, quality=0, pareto=False, seeds=seeds)

    merge = point("merge", noise, noise)
    first = point("expert 0 alone", [1.3 * n + 0.1 for n in noise], [2 * n + 1 for n in noise])
    second = point("expert 1 alone", [n + 0.01 * (-1) ** i for i, n in enumerate(noise)], [2 * n + 2 for n in noise])
    found = _comparisons({one.name: one for one in (merge, first, second)}, "lower")
    raw = [
        compare_paired([getattr(s, figure) for s in merge.seeds], [getattr(s, figure) for s in other.seeds], "lower")
        for other in (first, second)
        for figure in ("bits_per_dim", "quality")
    ]
    assert [one.p_adjusted for one in found] == pytest.approx(holm([one.p_value for one in raw]))
    assert found[2].verdict == "no difference shown"
