"""A study that is run again: failures are retried, finished runs kept, and what does not fit is refused."""

import json
import shutil
import warnings

import pytest
import torch
import yaml
from click.testing import CliRunner
from small_study import changed, study_of
from torch import nn

from moeframe import cli
from moeframe.errors import RunFolderError
from moeframe.interfaces.launcher import Ended
from moeframe.report.study.comparison_table import table_of
from moeframe.report.study.formats import as_markdown
from moeframe.runs.pipeline import run
from moeframe.storage.study_folder import StudyFolder
from moeframe.studies.plan import plan
from moeframe.studies.runner import run_study


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_dies_is_recorded_with_its_cause_stops_no_other_and_is_tried_again(study_file, tmp_path):
    broken = {
        "soft": {"title": "soft gate"},
        "bad": {"set": {"gate": {"type": "posterior", "classifier": str(tmp_path / "none.pt")}}},
    }
    changed(study_file, variants=broken, seeds=[0])
    arguments = ["study", str(study_file), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1
    assert "warning: bad, seed 0: " in result.stderr
    assert "none.pt: no such file" in result.stderr
    record = json.loads((tmp_path / "out/study.json").read_text())
    assert [run["status"] for row in record["variants"] for run in row["runs"]] == ["finished", "failed"]
    table = table_of(record)
    assert table.rows[1].cells["bits_per_dim"].mean is None
    assert "none.pt" in table.rows[1].cells["bits_per_dim"].why_not
    assert "incomplete: 0 of 1" in as_markdown(table)
    broken["bad"] = {"set": {"gate": {"type": "uniform"}}}
    changed(study_file, variants=broken)
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0


@pytest.mark.slow
def test_weights_that_are_no_longer_those_of_their_variant_are_refused(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(copy / "runs/soft/0")
    with pytest.raises(RunFolderError, match=r"(cut|switch)/0: used weights that 'soft' no longer has"):
        run_study(study_of(path), copy)


def test_a_process_that_is_killed_is_a_failed_run(study_file, tmp_path, monkeypatch):
    def killed(self, tasks):
        yield from (Ended(task, -9) for task in tasks)

    monkeypatch.setattr("moeframe_builtin.launchers.local.LocalLauncher.run", killed)
    study = study_of(study_file)
    assert run_study(study, tmp_path / "out").rows[0].finished == 0
    row = json.loads((tmp_path / "out/study.json").read_text())["variants"][0]
    assert [run["status"] for run in row["runs"]] == ["failed", "failed"]
    assert row["runs"][0]["cause"].startswith("exited with status -9; no error message was written; see ")


def test_the_folder_of_another_study_is_refused(study_file, tmp_path):
    study = study_of(study_file)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.json").write_text(json.dumps({"name": "other"}))
    with pytest.raises(RunFolderError, match="belongs to the study 'other', not to 'little'; choose another"):
        run_study(study, tmp_path / "out")
    with pytest.raises(RunFolderError, match="belongs to the study 'other', not to 'little'; choose another"):
        plan(study, tmp_path / "out")
    (tmp_path / "out/study.json").write_text(json.dumps({"name": "little", "variants": [{"name": "x"}]}))
    with pytest.raises(
        RunFolderError, match=r"belongs to another study 'little' \(variants x\), which has no variant in common"
    ):
        plan(study, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(RunFolderError, match=r"not a study folder, but holds thesis\.tex; choose an empty folder"):
        run_study(study, tmp_path / "full")
    with (
        StudyFolder(tmp_path / "busy").claimed(),
        pytest.raises(RunFolderError, match="another moeframe process works"),
    ):
        run_study(study, tmp_path / "busy")


@pytest.mark.slow
def test_a_variant_that_changed_after_it_was_run_is_refused(done, tmp_path):
    path, out, _ = done
    variants = yaml.safe_load(path.read_text())["variants"] | {"sparse": {"set": {"gate": {"type": "uniform"}}}}
    other = tmp_path / "little.yaml"
    other.write_text(
        yaml.safe_dump(
            {**yaml.safe_load(path.read_text()), "variants": variants, "spec": str(path.parent / "tiny.yaml")},
            sort_keys=False,
        )
    )
    with pytest.raises(RunFolderError, match="was run with other settings .* give the variant another name, or delete"):
        run_study(study_of(other), out)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_asked_for_later_is_measured_and_nothing_else_is(done, tmp_path):
    """One with other settings is measured again, one that is not asked for is not shown."""
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    before = {p: p.read_bytes() for p in copy.glob("runs/*/*/seed-*/checkpoints/**/*") if p.is_file()}
    figures = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    later = tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml")}
    content["set"]["metrics"] = [{"type": "network_calls"}, {"type": "bits_per_dim", "repeats": 2}]
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(later).only(["sparse"]).only_seeds([3])
    assert {(run.status, run.cause) for run in plan(study, copy)} == {("to measure", "network_calls, bits_per_dim")}
    table = run_study(study, copy)
    assert {column.name for column in table.columns} == {"network_calls", "bits_per_dim"}
    found = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert list(found) == ["network_calls", "bits_per_dim", "parameters"]
    assert found["parameters"] == figures["parameters"]
    assert found["bits_per_dim"]["how"] != figures["bits_per_dim"]["how"]
    assert {p: p.read_bytes() for p in copy.glob("runs/*/*/seed-*/checkpoints/**/*") if p.is_file()} == before
    assert {run.status for run in plan(study, copy)} == {"finished"}
    assert {run.status for run in plan(study_of(later), copy)} == {"finished", "to measure"}, "the other seed"
    alone = run(copy / "specs/sparse.yaml", overrides=["seeds=[3]"], out=tmp_path / "alone")
    within = json.loads((copy / "runs/sparse/3/results.json").read_text())["metrics"]["bits_per_dim"]
    assert within["mean"] == alone.metrics["bits_per_dim"].mean


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_is_measured_once_its_weights_are_there(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    weights, later = tmp_path / "network.pt", tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml"), "seeds": [3]}
    content["set"]["metrics"].append(
        {"type": "kid", "features": "torchscript", "weights": str(weights), "samples": 8, "reference": "train"}
    )
    content["variants"] = {"soft": content["variants"]["soft"]}
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(later)
    table = run_study(study, copy)
    assert "kid" not in table.rows[0].cells
    assert str(weights) in table.not_measured["kernel distance"]
    before = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert str(weights) in before["kid"]["unavailable"]
    assert {run.status for run in plan(study, copy)} == {"finished"}, "it would be missing again"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch discourages TorchScript in some versions
        torch.jit.save(torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())), weights)
    assert {(run.status, run.cause) for run in plan(study, copy)} == {("to measure", "kid")}
    row = run_study(study, copy).rows[0]
    assert row.cells["kid"].mean is not None
    after = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert {name: entry for name, entry in after.items() if name != "kid"} == {
        name: entry for name, entry in before.items() if name != "kid"
    }
    assert {run.status for run in plan(study, copy)} == {"finished"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_that_cannot_be_measured_later_takes_no_figure_away(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    for folder in copy.glob("runs/*/*/seed-*/checkpoints"):
        shutil.rmtree(folder)  # as in a study that is kept
    later = tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml"), "seeds": [3]}
    content["set"]["metrics"].append({"type": "network_calls"})
    content["variants"] = {"soft": content["variants"]["soft"]}
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    row = run_study(study_of(later), copy).rows[0]
    assert row.complete
    assert row.failures == [
        f"seed 3: metrics added later: {copy}/runs/soft/3: has no checkpoint of seed 3; its weights were not kept, or "
        "are in the folder that it was trained in"
    ]
    assert row.cells["bits_per_dim"].mean is not None
    content["set"]["metrics"].pop()
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    assert run_study(study_of(later), copy).rows[0].failures == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_changed_variant_is_seen_by_the_plan_and_refused_and_others_can_be_asked_for(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml")}
    content["variants"]["sparse"] = {"title": "uniform now", "set": {"gate": {"type": "uniform"}}}
    content["variants"]["more"] = {"set": {"gate": {"type": "random"}}}
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(tmp_path / "little.yaml")
    found = {(run.variant, run.status): run.cause for run in plan(study, copy)}
    assert "gate.type: 'top_k' there, 'uniform' now" in found["sparse", "changed"]
    assert ("soft", "finished") in found
    arguments = ["study", str(tmp_path / "little.yaml"), "--out", str(copy)]
    result = CliRunner().invoke(cli.main, [*arguments, "--plan"])
    assert "sparse, seeds 0, 3: changed: gate" in result.output
    assert CliRunner().invoke(cli.main, arguments).exit_code == 2
    result = CliRunner().invoke(cli.main, [*arguments, "--only", "more", "--run-seed", "3"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads((copy / "study.json").read_text())["variants"]}
    assert rows["sparse"]["title"] == "sparse", "the record says what was run"
    assert [run["status"] for run in rows["more"]["runs"]] == ["to do", "finished"]
