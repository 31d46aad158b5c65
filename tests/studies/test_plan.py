"""The plan of a study: which runs are left, what they cost, and which part of them is asked for."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_study import changed, study_of

from moeframe import cli
from moeframe.assembly import assemble
from moeframe.model.flops import count_flops, on_meta
from moeframe.plugin.registry import Registry
from moeframe.storage.study_folder import StudyFolder
from moeframe.studies.cost import TRAINED
from moeframe.studies.plan import plan
from moeframe.studies.record import gather
from moeframe.studies.runner import _task
from moeframe.studies.worker import StudyTask

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_plan_of_a_study_under_way_says_how_long_the_rest_takes(done):
    path, out, _ = done
    assert all(run.seconds is not None and run.seconds > 0 for run in plan(study_of(path), out))


def test_the_plan_counts_what_the_gate_asks_and_the_sampler_evaluates(study_file, tmp_path):
    router = {
        "gate": {"type": "posterior"},
        "objective": [{"type": "slice_alignment"}],
        "training": {"trainable": "gate", "steps": 4, "batch_size": 4},
    }
    variants = {
        "soft": {},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1}}},
        "random": {"set": {"gate": {"type": "random"}}},
        "heun": {"set": {"sampler": {"type": "heun", "steps": 2}}},
        "router": {"set": router},
    }
    study = study_of(changed(study_file, variants=variants, seeds=[0], set={"slicer": {"type": "color_variance"}}))
    found = {run.variant: (run.training_calls, run.sampling_calls) for run in plan(study, tmp_path)}
    # four steps of batches of four images, without a warm start; two steps of sampling
    assert found == {"soft": (32, 4), "sparse": (16, 2), "random": (16, 2), "heun": (32, 6), "router": (0, 4)}


def test_the_plan_tells_large_networks_from_small_ones_by_their_operations(study_file, tmp_path):
    variants = {"soft": {}, "wide": {"set": {"experts.0.channels": 16}}, "cut": {"weights_of": "soft"}}
    study = study_of(changed(study_file, variants=variants, seeds=[0, 1], set={"slicer": {"type": "color_variance"}}))
    found = {run.variant: run for run in plan(study, tmp_path / "out")}
    expert = assemble(study.variant("soft").spec, Registry.installed(), 0).model.experts[0]
    per_call = count_flops(on_meta(expert), "expert", expert.image)
    assert found["soft"].training_flops == TRAINED * found["soft"].training_calls * per_call
    assert found["wide"].training_calls == found["soft"].training_calls
    assert found["wide"].training_flops > 2 * found["soft"].training_flops
    assert found["cut"].training_flops == 0
    assert all(run.seconds is None for run in found.values())
    place = StudyFolder(tmp_path / "out")
    for path, content in ((place.results("soft", 0), {"metrics": {}}), (place.seconds("soft", 0), {"seconds": 60.0})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    place.record.write_text(json.dumps({"name": "little"}))
    found = {run.variant: run for run in plan(study, place.path) if run.seed == 1}
    assert found["soft"].seconds == 60
    assert found["wide"].seconds > 120


def test_equal_variants_share_the_runs_that_are_there_whatever_their_order(study_file, tmp_path):
    study = study_of(changed(study_file, variants={"one": {}, "twin": {}, "third": {}}, baseline="one"))
    assert [variant.same_as for variant in study.variants] == [None, "one", "one"]
    for seed in study.seeds:
        folder = tmp_path / f"out/runs/twin/{seed}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text('{"metrics": {}}')
    found = {(run.variant, run.status) for run in plan(study, tmp_path / "out")}
    assert found == {("twin", "to measure")}  # latency
    gather(study, tmp_path / "out")
    record = json.loads((tmp_path / "out/study.json").read_text())
    assert [row["same_as"] for row in record["variants"]] == ["twin", None, "twin"]
    assert all(run["status"] == "finished" for row in record["variants"] for run in row["runs"])


def test_only_some_variants_bring_the_baseline_and_what_they_are_made_of(study_file, tmp_path):
    variants = {
        "soft": {},
        "other": {"set": {"gate": {"type": "uniform"}}},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
        "cut": {"weights_of": "sparse"},
    }
    study = study_of(changed(study_file, variants=variants))
    asked = study.only(["cut"])
    assert asked.variants == study.variants  # the table is of the whole study, whatever is carried out
    assert {run.variant for run in plan(asked, tmp_path / "out")} == {"soft", "sparse", "cut"}
    arguments = ["study", str(study_file), "--plan", "--only", "other", "--out", str(tmp_path / "out")]
    assert "sparse" not in CliRunner().invoke(cli.main, arguments).output
    result = CliRunner().invoke(cli.main, [*arguments, "--only", "spase"])
    assert result.exit_code == 2
    assert "error: unknown variant 'spase'; did you mean 'sparse'?" in result.output


def test_only_some_seeds_are_carried_out_and_an_unknown_one_is_refused(study_file, tmp_path):
    changed(study_file, seeds=[0, 4, 7])
    arguments = ["study", str(study_file), "--plan", "--out", str(tmp_path / "out")]
    study = study_of(study_file)
    assert {run.seed for run in plan(study.only_seeds([7, 0]), tmp_path / "out")} == {0, 7}
    assert study.only_seeds([4]).seeds == (0, 4, 7)  # a run of one seed is the same run in the whole study
    result = CliRunner().invoke(cli.main, [*arguments, "--run-seed", "5"])
    assert result.exit_code == 2
    assert "error: unknown seed 5; the study has 0, 4, 7: add it to seeds in the study file" in result.output


def test_weights_of_a_variant_that_repeats_another_are_those_of_the_other(study_file, tmp_path):
    variants = {
        "soft": {},
        "twin": {},
        "cut": {"weights_of": "twin", "set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
    }
    study = study_of(changed(study_file, variants=variants))
    assert study.source_of("twin") == study.source_of("soft") == "soft"
    task = _task(StudyFolder(tmp_path), study, study.variant("cut"), 3)
    assert StudyTask.model_validate_json(task.command[-1]).weights_of == "soft"


def test_a_plan_fits_eighty_columns_with_every_name_and_figure_whole(monkeypatch):
    study = study_of(ROOT / "specs/studies/digits.yaml")
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["study", str(ROOT / "specs/studies/digits.yaml"), "--plan", "--out", "none"]
    text = CliRunner().invoke(cli.main, arguments).output
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(variant.name in text for variant in study.variants)
    assert "0-5" in text
