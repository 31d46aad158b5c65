"""A study kept without its runs: one file of records writes the page and tables that the runs wrote."""

import base64
import io
import json
import lzma
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from small_study import SEEDS, study_of, write_study_folder

from moeframe import cli
from moeframe.errors import RunFolderError
from moeframe.report.study.page import write_study
from moeframe.report.study.run_records import study_records
from moeframe.studies.plan import plan
from moeframe.studies.runner import run_study

pytestmark = pytest.mark.slow  # pages with all their plots

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path.parent for path in ROOT.glob("results/studies/*/study.json"))


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import study_results

        yield study_results


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A study with a run that failed, one that lacks its times, and all that a run folder holds."""
    folder = write_study_folder(tmp_path_factory.mktemp("study") / "little")
    for run in folder.glob("runs/*/*/results.json"):
        environment = {"device_name": "a machine" if run.parent.name != "3" else "another"}
        (run.parent / "environment.json").write_text(json.dumps(environment))
        (run.parent / "spec.yaml").write_text(
            "metrics: [{type: bits_per_dim}, {type: network_calls, label: frechet}, {type: parameters}]"
        )
        wide = Image.new("L", (96, 32), 200)
        wide.paste(Image.open(run.parent / f"seed-{run.parent.name}/samples.png"))
        wide.save(run.parent / f"seed-{run.parent.name}/samples.png")
    (folder / "runs/B/2.alone.json").unlink()
    (folder / "runs/B/2.alone.failure.json").write_text('{"cause": "out of memory"}')
    write_study(folder)
    return folder


@pytest.fixture(scope="module")
def kept(full, script, tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "ROOT", root)
        script.main(full)
    return root / "results/studies/little"


def pages(folder):
    """Page and tables."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in [*folder.glob("*.html"), *folder.rglob("tables/*")]
    }


def lines_of(folder):
    return [json.loads(line) for line in lzma.decompress((folder / "records.jsonl.xz").read_bytes()).splitlines()]


def with_lines(kept, folder, lines):
    """The kept study, its records replaced."""
    copy = shutil.copytree(kept, folder)
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (copy / "records.jsonl.xz").write_bytes(lzma.compress(text.encode()))
    return copy


def test_page_and_tables_of_the_records_equal_those_of_the_runs(full, kept, tmp_path):
    copy = shutil.copytree(kept, tmp_path / "little")
    for path in [copy / "study.html", *(copy / "tables").iterdir()]:
        path.unlink()
    result = CliRunner().invoke(cli.main, ["report", str(copy)])
    assert result.exit_code == 0, result.output
    assert len(pages(copy)) == 1 + 3 * 4
    assert pages(copy) == pages(full)
    assert (copy / "study.json").read_bytes() == (kept / "study.json").read_bytes(), "metrics are in the records alone"


@pytest.mark.parametrize("field", ["cause", "metrics", "diagnostics", "validation", "samples_png", "environment"])
def test_the_page_shows_every_field_of_the_records_but_the_spec(kept, tmp_path, field):
    """So that a field which the script forgets to keep is seen by the test above."""
    lines = [{key: value for key, value in line.items() if key != field} for line in lines_of(kept)]
    copy = with_lines(kept, tmp_path / "little", lines)
    write_study(copy)
    assert pages(copy) != pages(kept)


def test_a_kept_study_is_a_handful_of_files(full, kept):
    files = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert files - set(pages(kept)) == {"study.json", "made.json", "records.jsonl.xz"}
    assert len(lines_of(kept)) == 4 * len(SEEDS)


def test_a_metric_without_a_role_gets_that_of_the_installed_metric(full, script, tmp_path, monkeypatch):
    old = shutil.copytree(full, tmp_path / "little")
    for path in [*old.glob("runs/A/*/results.json"), *old.glob("runs/A/*.alone.json")]:
        content = json.loads(path.read_text())
        for metric in content["metrics"].values():
            del metric["role"]
        path.write_text(json.dumps(content))
    monkeypatch.setattr(script, "ROOT", tmp_path)
    script.main(old)
    lines = lines_of(tmp_path / "results/studies/little")
    metrics = next(line["metrics"] for line in lines if line["variant"] == "A")
    assert {name: metric.get("role") for name, metric in metrics.items()} == {
        "bits_per_dim": "likelihood",
        "frechet": "cost",  # by its type, network_calls, not by its label
        "parameters": "cost",
        "latency": None,  # its type is unknown here: no settings were written
    }


def test_records_hold_one_square_of_samples_of_each_variant(kept):
    pictures = {
        (line["variant"], line["seed"]): line["samples_png"] for line in lines_of(kept) if "samples_png" in line
    }
    assert set(pictures) == {(variant, 0) for variant in "ABCD"}
    for picture in pictures.values():
        assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (32, 32)


def test_runs_come_before_records(full, kept, tmp_path):
    copy = shutil.copytree(full, tmp_path / "little")
    shutil.copy(kept / "records.jsonl.xz", copy)
    shutil.rmtree(copy / "runs/A/0")
    found = study_records(copy, ["A", "B"], [0])
    assert set(found) == {("B", 0)}


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda lines: ["{", *lines], r"records\.jsonl\.xz:1: not JSON \(.*\); download the file again"),
        (lambda lines: [{**lines[0], "seed": "x"}], r"records\.jsonl\.xz:1: seed: Input should be a valid integer"),
        (
            lambda lines: [*lines[:1], {**lines[1], "diagnostics": {"image_bits": "many"}}],
            r"records\.jsonl\.xz:2: diagnostics: image_bits: Input should be a valid list",
        ),
    ],
)
def test_damaged_records_are_named_with_their_line(kept, tmp_path, spoil, error):
    copy = with_lines(kept, tmp_path / "little", spoil(lines_of(kept)))
    with pytest.raises(RunFolderError, match=error):
        write_study(copy)


def test_records_cut_short_are_named(kept, tmp_path):
    copy = shutil.copytree(kept, tmp_path / "little")
    content = (kept / "records.jsonl.xz").read_bytes()
    for damaged in (content[: len(content) // 2], b"text"):
        (copy / "records.jsonl.xz").write_bytes(damaged)
        with pytest.raises(RunFolderError, match=r"records\.jsonl\.xz: cannot be read \(.*\); download the file again"):
            write_study(copy)


def test_a_kept_study_is_not_continued(study_file, kept):
    for act in (plan, run_study):
        with pytest.raises(RunFolderError, match="but not its runs, so no run can be resumed or added; use another"):
            act(study_of(study_file), kept)


def test_the_script_refuses_a_folder_without_runs(kept, script):
    with pytest.raises(SystemExit, match="has no runs/; name the folder that `moeframe study` wrote"):
        script.main(kept)


@pytest.mark.parametrize("committed", STUDIES, ids=lambda path: path.name)
def test_a_committed_study_is_what_this_version_makes_of_its_records(committed, tmp_path):
    copy = shutil.copytree(committed, tmp_path / committed.name)
    assert CliRunner().invoke(cli.main, ["report", str(copy)]).exit_code == 0
    for path in sorted(path for path in committed.rglob("*") if path.is_file()):
        assert (copy / path.relative_to(committed)).read_bytes() == path.read_bytes(), path


def test_results_stay_small_enough_to_clone():
    files = [path for path in (ROOT / "results").rglob("*") if path.is_file()]
    assert len(files) <= 100
    assert sum(path.stat().st_size for path in files) < 5_000_000
