"""--json: one document on standard output with the documented keys, everything else on standard error."""

import json

import pytest
from command_line import call


def document(*arguments, status=0):
    """The document of a command, whose standard output holds nothing else."""
    result = call(*arguments)
    assert result.exit_code == status, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_text):
    """A finished run and the document that `run --json` printed."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "tiny.yaml").write_text(tiny_text)
    return folder / "run", document("run", folder / "tiny.yaml", "--out", folder / "run", "--json")


def test_run_prints_the_results_and_where_the_report_is(finished):
    folder, printed = finished
    assert list(printed) == ["folder", "report", "warnings", "results", "sweep"]
    assert printed["folder"] == str(folder)
    assert printed["report"] == f"{folder}/report.html"
    assert printed["results"] == json.loads((folder / "results.json").read_text())
    assert printed["sweep"] is None


def test_evaluate_prints_the_same_document(finished):
    folder, _ = finished
    printed = document("evaluate", folder, "--set", "metrics=[{type: parameters}]", "--json")
    assert list(printed["results"]["metrics"]) == ["parameters"]


@pytest.mark.slow
def test_merge_prints_the_same_document(tiny_spec, tmp_path):
    untrained = ("--set", "training={steps: 0, trainable: none, batch_size: 4}")
    printed = document("merge", tiny_spec, "--out", tmp_path / "run", *untrained, "--json")
    assert list(printed) == ["folder", "report", "warnings", "results", "sweep"]


def test_validate_describes_a_sound_spec(tiny_spec):
    printed = document("validate", tiny_spec, "--json")
    assert printed == {
        "file": str(tiny_spec),
        "kind": "spec",
        "valid": True,
        "problems": [],
        "name": "tiny",
        "experts": 2,
        "seeds": [0],
        "variants": None,
        "resolved": None,
    }
    resolved = document("validate", tiny_spec, "--json", "--resolved")["resolved"]
    assert resolved["training"]["weight_decay"] == 0.01


def test_validate_describes_a_study(study_file):
    printed = document("validate", study_file, "--json")
    assert printed["kind"] == "study"
    assert len(printed["variants"]) > 1
    assert printed.keys() == document("validate", study_file.parent / "tiny.yaml", "--json").keys()


def test_validate_lists_every_problem_with_its_place(tiny_spec):
    tiny_spec.write_text(tiny_spec.read_text().replace("type: softmax", "type: sofmax") + "nonsense: 1\n")
    printed = document("validate", tiny_spec, "--json", status=2)
    assert (printed["kind"], printed["valid"]) == (None, False)
    assert [list(problem) for problem in printed["problems"]] == [["place", "path", "message"]] * 2
    assert [problem["path"] for problem in printed["problems"]] == ["gate.type", "nonsense"]


def test_validate_says_in_the_document_that_the_file_is_missing(tmp_path):
    [problem] = document("validate", tmp_path / "no.yaml", "--json", status=2)["problems"]
    assert problem["message"].startswith(f"{tmp_path}/no.yaml: no such spec file")


def test_doctor_lists_its_findings(tiny_spec, tmp_path):
    printed = document("doctor", tiny_spec, "--json")
    assert list(printed) == ["complete", "findings"]
    assert printed["complete"] is True
    assert {tuple(finding) for finding in printed["findings"]} == {("what", "ok", "detail", "needed")}
    missing = f"dataset={{type: image_folder, root: {tmp_path}/none, size: 8}}"
    assert document("doctor", tiny_spec, "--set", missing, "--json", status=2)["complete"] is False


def test_the_plan_of_a_study_lists_its_runs(study_file, tmp_path):
    printed = document("study", study_file, "--plan", "--json", "--out", tmp_path / "out")
    assert list(printed) == ["name", "folder", "runs"]
    keys = ["variant", "seed", "status", "cause", "training_calls", "training_flops", "sampling_calls", "seconds"]
    assert [list(run) for run in printed["runs"]] == [keys] * len(printed["runs"])
    assert len(printed["runs"]) > 1


def test_the_json_of_a_study_needs_the_plan(study_file):
    result = call("study", study_file, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: --json needs --plan here; ")


def test_an_error_leaves_standard_output_empty(tmp_path):
    result = call("run", tmp_path / "no.yaml", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
