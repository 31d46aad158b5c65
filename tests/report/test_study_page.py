"""study.html: what it says of known values."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_study import row, spoiled, write_study_folder

from moeframe import cli
from moeframe.errors import RunFolderError
from moeframe.report.study.page import write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study_folder(tmp_path_factory.mktemp("study") / "little")


@pytest.fixture(scope="module")
def table(folder):
    return write_study(folder)


@pytest.fixture(scope="module")
def page(folder, table):
    return (folder / "study.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_report_writes_the_same_bytes_again(folder, table):
    files = [folder / "study.json", folder / "study.html", *sorted((folder / "tables").iterdir())]
    assert len(files) == 2 + 3 * 4
    before = {file: file.read_bytes() for file in files}
    for file in files[1:]:
        file.unlink()
    result = CliRunner().invoke(cli.main, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert {file: file.read_bytes() for file in files} == before


def test_figures_are_compared_and_counts_are_not(table):
    b = row(table, "B")
    assert b.cells["bits_per_dim"].against.verdict == "better"
    assert b.cells["frechet"].against.verdict == "no difference shown"
    assert b.cells["parameters"].against is None
    assert b.cells["parameters"].ratio == 4
    assert b.cells["parameters, active"].mean == 2000
    assert not any(each.cells["bits_per_dim"].best for each in table.rows), "B and D are alike"
    assert not any(each.cells["parameters"].best for each in table.rows)


@pytest.mark.slow
def test_the_best_is_marked_where_the_seeds_suffice_against_every_other_row(table, tmp_path):
    assert not row(table, "A").cells["latency"].best, "C has five seeds, too few to be called slower"
    whole = write_study(write_study_folder(tmp_path / "whole", failed=None))
    assert [each.name for each in whole.rows if each.cells["latency"].best] == ["A"]


def test_a_run_that_died_is_shown_with_its_cause_and_its_row_is_incomplete(table, page):
    assert row(table, "C").finished == 5
    assert "seed 5: step 7: loss is NaN" in page
    assert ">5 of 6</span>" in page
    c = row(table, "C").cells["bits_per_dim"]
    assert (c.n_seeds, c.against.n) == (5, 5)


def test_it_says_at_which_noise_levels_and_on_which_slices_a_variant_helped_and_nowhere_else(page):
    [where] = re.findall(r'<ul class="sentences where">(.*?)</ul>', page, re.S)
    lines = re.findall(r"<li>(.*)</li>", where)
    helped = {re.match(r"(.): .* vs .*?, (.*?): ", line).groups() for line in lines}
    assert helped == {("B", "log-SNR 0 to 4"), ("B", "log-SNR 4 to 8"), ("B", "light (4 images)")}
    assert all("significantly better" in line for line in lines)


def test_no_sentence_claims_what_its_interval_does_not_carry(table, page):
    supported = 0
    for sentence in re.findall(r"<li>(.*?)</li>", page):
        if match := re.search(r"95 % interval (\S+) to (\S+?)[,;)]", sentence):
            low, high = (float(end.replace(",", "")) for end in match.groups())
            if ": significantly " in sentence:
                supported += 1
                assert low > 0 or high < 0, sentence
    assert supported > 2


def changed(tmp_path, path, change):
    """As `spoiled`, with what the page says afterwards."""
    folder = spoiled(tmp_path, path, change)
    return write_study(folder), (folder / "study.html").read_text(encoding="utf-8"), folder


@pytest.mark.slow
def test_pairs_are_compared_with_each_other_beside_the_baseline(tmp_path):
    table, page, folder = changed(
        tmp_path, "study.json", lambda data: data.update(compare=[["B", "C"], ["D", "B"], ["B", "B2"]])
    )
    assert [(pair.first, pair.second) for pair in table.pairs] == [("B", "C"), ("D", "B")], "B2 is no row"
    bits = table.pairs[0].against["bits_per_dim"]
    assert (bits.verdict, bits.n) == ("better", 6)
    assert bits.difference == pytest.approx(-0.2, abs=0.01)
    assert bits.gain_interval[0] < bits.relative_gain < bits.gain_interval[1]
    assert "parameters" not in table.pairs[0].against
    assert "B: K = 4, soft gate vs C: top-2 &amp; more &lt;cut&gt;, bits/dim: significantly better" in page
    [line] = [line for line in (folder / "tables/study.md").read_text().splitlines() if "D: slices minus B" in line]
    assert "gain" in line
    lines = (folder / "tables/study.csv").read_text().splitlines()
    assert sum(line.startswith("B,") and ",C," in line for line in lines) == 3
    [where] = re.findall(r'<ul class="sentences where">(.*?)</ul>', page, re.S)
    assert "B: K = 4, soft gate vs C: top-2 &amp; more &lt;cut&gt;, log-SNR 4 to 8: significantly better" in where
    assert 'id="part-pairs-1"' in page


@pytest.mark.slow
def test_training_compute_is_counted_in_operations_where_they_were_measured(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    for path in folder.glob("runs/*/*/results.json"):
        data = json.loads(path.read_text())
        per_step = {"A": 40.0, "B": 40.0, "C": 40.0}.get(path.parts[-3])  # A is one network as large as four of B's
        if per_step:
            parts = {"per_step_dense": {"mean": per_step}}
            data["metrics"]["flops"] = {"unit": "FLOPs", "better": "lower", "mean": per_step, "parts": parts}
        path.write_text(json.dumps(data))
    table = write_study(folder)
    assert row(table, "A").training_flops == 3 * 6400 * 40
    assert row(table, "B").training_flops == 3 * 4 * 6400 * 10
    assert row(table, "D").training_flops is None
    text = (folder / "study.html").read_text(encoding="utf-8")
    assert "Not shown: D: slices" in text
    assert "Without a learning curve: D: slices." in text
    [said] = re.findall(r"<li>(B: K = 4, soft gate vs A: single expert at equal training compute.*)</li>", text)
    # both spend 3 * 40 operations a step and image, so their curves are at the same places, B's lower by 0.1
    assert re.fullmatch(
        r".*, 1\.92e\+05 to 7\.68e\+05: lower everywhere, higher nowhere; at the last common point -0\.10* \(.*\) "
        r"bits/dim over 6 seeds, with 100% and 100% of the trainings done\.",
        said,
    )
    record = json.loads((folder / "study.json").read_text())
    for facts in record["variants"]:
        facts["warm_start_steps"] = 25
    (folder / "study.json").write_text(json.dumps(record))
    write_study(folder)
    assert "trainings done; 1 of the 3 points in the warm start of B: K = 4, soft gate." in (
        folder / "study.html"
    ).read_text(encoding="utf-8"), "a single expert has none"
    noise = (folder / "tables/noise_levels.md").read_text()
    assert f"| {3 * 6400 * 40:.3g} |" in noise, "costs stand beside the parts too"


@pytest.mark.slow
def test_what_was_not_run_is_said_and_no_row_is_incomplete_for_it(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    shutil.rmtree(folder / "runs/D")
    for place in [*folder.glob("runs/*/4"), *folder.glob("runs/*/5")]:
        shutil.rmtree(place)
    table = write_study(folder)
    assert [each.name for each in table.rows] == ["A", "B", "C"]
    assert all(each.complete and each.seeds == 4 for each in table.rows)
    text = (folder / "study.html").read_text(encoding="utf-8")
    assert "Not run: D: slices." in text
    assert "4 of 6 planned seeds were run." in text
    assert "Comparisons over fewer than 6 seeds are underpowered: verdicts follow the 95 % intervals" in text
    assert "Subgroups whose 95 % interval excludes 0 (uncorrected)." in text
    assert len((json.loads((folder / "study.json").read_text()))["variants"]) == 4, "the record is of the whole study"


@pytest.mark.slow
def test_what_a_study_showed_is_not_reported_again_without_its_runs(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    write_study(folder)
    kept = (folder / "study.json").read_bytes()
    shutil.rmtree(folder / "runs")
    with pytest.raises(
        RunFolderError,
        match="no runs and no run records found, so the page cannot be made; use the folder with the runs",
    ):
        write_study(folder)
    assert (folder / "study.json").read_bytes() == kept


@pytest.mark.slow
def test_what_is_kept_of_a_study_without_its_weights_gives_the_same_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import study_results

    folder = write_study_folder(tmp_path / "study")
    monkeypatch.setattr(study_results, "ROOT", tmp_path)
    study_results.main(folder)
    kept = tmp_path / "results/studies/little"
    first = {path.name: path.read_bytes() for path in [kept / "study.html", kept / "study.json"]}
    write_study(kept)
    assert {path.name: path.read_bytes() for path in [kept / "study.html", kept / "study.json"]} == first
    assert (kept / "study.html").read_bytes() == (folder / "study.html").read_bytes()


def test_names_are_escaped(page):
    assert "<cut>" not in page
    assert "top-2 &amp; more &lt;cut&gt;" in page


def test_everything_is_in_the_one_file(page):
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "http://www.w3.org" in page, "names of SVG's vocabulary, which nobody fetches"
    assert not re.findall(r"@import|url\((?!#)", page)


def test_every_table_is_there_as_csv_markdown_latex_and_json(folder, table):
    endings = {".csv", ".md", ".tex", ".json"}
    names = {path.name for path in (folder / "tables").iterdir()}
    assert names == {f"{name}{ending}" for name in ("study", "noise_levels", "slices") for ending in endings}
    files = {ending: (folder / f"tables/study{ending}").read_text(encoding="utf-8") for ending in endings}
    for text in files.values():
        assert "slices" in text
    assert "frechet" in files[".csv"]
    assert "Fréchet distance" in files[".md"]
    assert "Fréchet distance" in files[".tex"]
    assert "bits_per_dim" not in files[".md"]
    assert "minus A: single expert" in files[".md"]
    assert "gain +" in files[".md"]
