"""A study's folder that lacks runs, seeds or values, or is damaged: the page says what is missing."""

import json

import pytest
from click.testing import CliRunner
from small_study import row, spoiled, write_study_folder

from moeframe import cli
from moeframe.errors import RunFolderError
from moeframe.report.study.page import write_study


def test_a_record_that_lacks_a_part_says_which(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    (folder / "study.json").write_text('{"name": "little"}')
    with pytest.raises(
        RunFolderError,
        match=r"study\.json: missing keys: baseline, seeds, dataset, variants; run `moeframe study` again",
    ):
        write_study(folder)


@pytest.mark.slow
def test_times_that_could_not_be_measured_are_shown_with_their_cause(tmp_path):
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    (folder / "runs/B/2.alone.json").unlink()
    (folder / "runs/B/2.alone.failure.json").write_text('{"cause": "out of memory"}')
    b = row(write_study(folder), "B")
    assert b.failures == ["seed 2: times and memory: out of memory"]
    assert (b.cells["latency"].n_seeds, b.cells["bits_per_dim"].n_seeds) == (5, 6)
    text = (folder / "study.html").read_text()
    assert "seed 2: times and memory: out of memory" in text
    assert "[5 of 6 seeds]" in text
    assert "n = 5 of 6 seeds" in "\n".join(line for line in text.splitlines() if "latency" in line)


@pytest.mark.slow
def test_a_finished_run_without_a_figure_is_not_averaged_silently(tmp_path):
    folder = spoiled(tmp_path, "runs/D/3/results.json", lambda data: data["metrics"].pop("frechet"))
    cell = row(write_study(folder), "D").cells["frechet"]
    assert (cell.n_seeds, cell.against.n, cell.against.verdict) == (5, 5, "underpowered")
    line = next(line for line in (folder / "tables/study.md").read_text().splitlines() if "D: slices" in line)
    assert "[5 of 6 seeds]" in line
    page = (folder / "study.html").read_text()
    assert "Fréchet distance missing for D: slices: seed 3: not measured." in page
    assert page.count("D: slices (5 of 6 seeds)\n") == 5, "in every scatter with that metric, the first in two widths"


@pytest.mark.slow
def test_figures_in_another_unit_are_not_compared(tmp_path):
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    for path in folder.glob("runs/D/*/results.json"):
        path.write_text(path.read_text().replace("x features", "y features"))
    cell = row(write_study(folder), "D").cells["frechet"]
    assert cell.mean is None
    assert cell.why_not == "different unit: Fréchet distance, y features"


@pytest.mark.slow
def test_rows_without_a_common_seed_have_no_best(tmp_path):
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    for name, kept in (("B", (0, 1, 2)), ("C", (3, 4, 5))):
        for seed in set(range(6)) - set(kept):
            (folder / f"runs/{name}/{seed}/results.json").unlink()
    table = write_study(folder)
    assert not any(cell.best for each in table.rows for cell in each.cells.values())


@pytest.mark.slow
def test_a_variant_measured_on_other_images_is_left_out_of_the_slices(tmp_path):
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    for path in folder.glob("runs/D/*/seed-*/diagnostics.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps(data | {"image_bits": data["image_bits"][:-1]}))
    write_study(folder)
    slices = json.loads((folder / "tables/slices.json").read_text())
    means = {each["name"]: each["cells"]["light (4 images)"]["mean"] for each in slices["rows"]}
    assert means["D"] is None
    assert means["A"] is not None


@pytest.mark.slow
def test_slices_that_depend_on_the_seed_are_not_averaged(tmp_path):
    def other_clusters(data):
        data["image_slices"][0] = 1
        data["slices"]["test"] = [3, 5]

    folder = spoiled(tmp_path, "runs/B/4/seed-4/diagnostics.json", other_clusters)
    (folder / "tables").mkdir()
    (folder / "tables/slices.json").write_text("of a time when the slices were the same")
    write_study(folder)
    assert not (folder / "tables/slices.json").exists()
    assert "Likelihood by slice" not in (folder / "study.html").read_text()


@pytest.mark.slow
def test_titles_survive_markdown_and_latex(tmp_path):
    folder = spoiled(tmp_path, "study.json", lambda data: data["variants"][1].update(title=r"a|b \ ~ ^ 50 %"))
    write_study(folder)
    lines = (folder / "tables/study.md").read_text().splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines[:6]}) == 1
    assert (
        r"a|b \textbackslash{} \textasciitilde{} \textasciicircum{} 50 \%" in (folder / "tables/study.tex").read_text()
    )
    assert r"\textbf{" in (folder / "tables/study.tex").read_text(), "A's latency is the best"


def test_the_page_says_what_each_variant_changes(tmp_path):
    def with_changes(data):
        data["changes"] = ["training.steps: 1500"]
        for each in data["variants"]:
            each["changes"] = ["experts.0.channels: 32", "gate: null"] if each["name"] == "C" else []

    folder = spoiled(tmp_path, "study.json", with_changes)
    write_study(folder)
    page = (folder / "study.html").read_text()
    assert "<dt>All variants</dt>\n<dd><code>training.steps: 1500</code></dd>" in page
    assert "<code>experts.0.channels: 32</code>; <code>gate: null</code></dd>" in page
    assert "<dt>D: slices</dt>\n<dd>no changes</dd>" in page


def test_a_folder_that_holds_neither_run_nor_study_is_refused(tmp_path):
    result = CliRunner().invoke(cli.main, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert f"error: cannot read {tmp_path}/results.json" in result.output


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"study\.json: cannot be read \(.*\); delete it and run the study again"):
        write_study(tmp_path)
