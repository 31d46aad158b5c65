"""study.html: what it says of known figures, and what a reader does with it in a real browser."""

import io
import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_study import TITLES, write_study_folder

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


def row(table, name):
    return next(row for row in table.rows if row.name == name)


# --- what it says -----------------------------------------------------------------------------------------------------


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
    assert "incomplete: 5 of 6" in page
    c = row(table, "C").cells["bits_per_dim"]
    assert (c.n_seeds, c.against.n) == (5, 5)


def test_it_says_at_which_noise_levels_and_on_which_slices_a_variant_helped_and_nowhere_else(page):
    [where] = re.findall(r'<ul class="where">(.*?)</ul>', page, re.S)
    lines = re.findall(r"<li>(.*)</li>", where)
    helped = {re.match(r"(.): .* against .*?, (.*?): ", line).groups() for line in lines}
    assert helped == {("B", "log-SNR 0 to 4"), ("B", "log-SNR 4 to 8"), ("B", "light (4 images)")}
    assert all("better on average" in line for line in lines)


def test_no_sentence_claims_what_its_interval_does_not_carry(table, page):
    supported = 0
    for sentence in re.findall(r"<li>(.*?)</li>", page):
        if match := re.search(r"95 % interval (\S+) to (\S+?)[,;]", sentence):
            low, high = (float(end.replace(",", "")) for end in match.groups())
            if "that the seeds support" in sentence:
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
    assert "B: K = 4, soft gate against C: top-2 &amp; more &lt;cut&gt;, bits_per_dim: better on average" in page
    [line] = [line for line in (folder / "tables/study.md").read_text().splitlines() if "D: slices minus B" in line]
    assert "gain" in line
    lines = (folder / "tables/study.csv").read_text().splitlines()
    assert sum(line.startswith("B,") and ",C," in line for line in lines) == 3
    [short] = re.findall(r'<ul class="short">(.*?)</ul>', page, re.S)
    first, second = re.findall(r"<li>(.*)</li>", short)
    assert re.fullmatch(
        r"B: K = 4, soft gate, minus A: single expert: bits_per_dim -0\.\d+ \(-0\.\d+ to -0\.\d+\), better; "
        r"frechet .*, no difference shown\.",
        first,
    )
    assert second.startswith("B: K = 4, soft gate, minus C: top-2 &amp; more &lt;cut&gt;: bits_per_dim -0.2")
    [where] = re.findall(r'<ul class="where">(.*?)</ul>', page, re.S)
    assert "B: K = 4, soft gate against C: top-2 &amp; more &lt;cut&gt;, log-SNR 4 to 8: better on average" in where
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
    assert "Without a learning curve of their own: D: slices." in text
    [said] = re.findall(r"<li>(B: K = 4, soft gate against A: single expert at equal training compute.*)</li>", text)
    # both spend 3 * 40 operations a step and image, so their curves are at the same places, B's lower by 0.1
    assert re.fullmatch(
        r".*, 1\.92e\+05 to 7\.68e\+05: its 95 % interval is everywhere below it and nowhere above it; at the last "
        r"common place -0\.10* \(.*\) bits/dim over 6 seeds; there 100% and 100% of their trainings are done\.",
        said,
    )
    record = json.loads((folder / "study.json").read_text())
    for facts in record["variants"]:
        facts["warm_start_steps"] = 25
    (folder / "study.json").write_text(json.dumps(record))
    write_study(folder)
    assert "trainings are done; 1 of the 3 places in the warm start of B: K = 4, soft gate." in (
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
    assert "4 of the study&#39;s 6 seeds were run." in text
    assert "Under 6 seeds no difference is called one" in text
    assert "Too few seeds to test a part" in text
    assert len((json.loads((folder / "study.json").read_text()))["variants"]) == 4, "the record is of the whole study"


@pytest.mark.slow
def test_what_a_study_showed_is_not_reported_again_without_its_runs(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    write_study(folder)
    kept = (folder / "study.json").read_bytes()
    shutil.rmtree(folder / "runs")
    with pytest.raises(
        RunFolderError, match="has none of the study's runs, only what they showed; report its own folder"
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


def test_a_record_that_lacks_a_part_says_which(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    (folder / "study.json").write_text('{"name": "little"}')
    with pytest.raises(
        RunFolderError, match=r"study\.json: lacks baseline, seeds, dataset, variants; `moeframe study`"
    ):
        write_study(folder)


def spoiled(tmp_path, path, change):
    """The study again, a JSON file of it changed."""
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    data = json.loads((folder / path).read_text())
    change(data)
    (folder / path).write_text(json.dumps(data))
    return folder


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
    assert "incomplete, 5 of 6 seeds" in "\n".join(line for line in text.splitlines() if "latency" in line)


@pytest.mark.slow
def test_a_finished_run_without_a_figure_is_not_averaged_silently(tmp_path):
    folder = spoiled(tmp_path, "runs/D/3/results.json", lambda data: data["metrics"].pop("frechet"))
    cell = row(write_study(folder), "D").cells["frechet"]
    assert (cell.n_seeds, cell.against.n, cell.against.verdict) == (5, 5, "underpowered")
    line = next(line for line in (folder / "tables/study.md").read_text().splitlines() if "D: slices" in line)
    assert "[5 of 6 seeds]" in line
    page = (folder / "study.html").read_text()
    assert "frechet of D: slices: seed 3: not measured." in page
    assert page.count("D: slices (5 of 6 seeds)") == 2, "in both scatters with that figure"


@pytest.mark.slow
def test_figures_in_another_unit_are_not_compared(tmp_path):
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    for path in folder.glob("runs/D/*/results.json"):
        path.write_text(path.read_text().replace("x features", "y features"))
    cell = row(write_study(folder), "D").cells["frechet"]
    assert cell.mean is None
    assert cell.why_not == "measured in another unit: Fréchet distance, y features"


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
    assert "On which slices" not in (folder / "study.html").read_text()


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
        for row in data["variants"]:
            row["changes"] = ["experts.0.channels: 32", "gate: null"] if row["name"] == "C" else []

    folder = spoiled(tmp_path, "study.json", with_changes)
    write_study(folder)
    page = (folder / "study.html").read_text()
    assert "<dt>all of them</dt>\n<dd><code>training.steps: 1500</code></dd>" in page
    assert "<code>experts.0.channels: 32</code>; <code>gate: null</code></dd>" in page
    assert "<dt>D: slices</dt>\n<dd>nothing</dd>" in page


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
        assert "frechet" in text
        assert "slices" in text
    assert "minus A: single expert" in files[".md"]
    assert "gain +" in files[".md"]


def test_a_folder_that_holds_neither_run_nor_study_is_refused(tmp_path):
    result = CliRunner().invoke(cli.main, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert f"error: cannot read {tmp_path}/results.json" in result.output


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"study\.json: cannot be read \(.*\); delete it and run the study again"):
        write_study(tmp_path)


# --- in a browser -----------------------------------------------------------------------------------------------------

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
in_a_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
)


@contextmanager
def opened(path, width, height):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    looks = ("headless=new", "disable-gpu", "hide-scrollbars", "window-size=1300,1200")
    for argument in (*looks, "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(path.as_uri())
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def browser(folder, table):
    with opened(folder / "study.html", 1200, 900) as driver:
        yield driver


def names(driver, table="comparison"):
    rows = "document.querySelectorAll(`#${arguments[0]} tbody tr:not([hidden]) .quiet`)"
    return "".join(driver.execute_script(f"return [...{rows}].map(each => each.textContent[0])", table))


def click_heading(driver, text):
    [button] = [b for b in driver.find_elements("css selector", "#comparison thead button") if b.text.startswith(text)]
    button.click()


@in_a_browser
@pytest.mark.slow
def test_the_page_opens_without_an_error_and_asks_nobody_for_anything(browser):
    assert browser.title == "little – moeframe study"
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked, "the page itself"
    assert all(url.startswith(("file:", "data:")) for url in asked)


@in_a_browser
@pytest.mark.slow
def test_a_heading_sorts_up_then_down_then_as_it_was(browser):
    shown = names(browser)
    assert shown == "ABCD"
    click_heading(browser, "latency")
    up = names(browser)
    assert up == "ACBD"
    click_heading(browser, "latency")
    assert names(browser) == up[::-1]
    click_heading(browser, "latency")
    assert names(browser) == shown


@in_a_browser
@pytest.mark.slow
def test_a_filter_leaves_the_rows_that_match_and_counts_them(browser):
    field = browser.find_element("css selector", "input[data-filter=comparison]")
    field.send_keys("K = 4")
    assert names(browser) == "B"
    assert browser.find_element("css selector", "output[data-count=comparison]").text == "1 of 4 rows"
    field.clear()
    field.send_keys(" ")
    assert names(browser) == "ABCD"


@in_a_browser
@pytest.mark.slow
def test_pointing_at_a_cell_or_a_mark_shows_its_values(browser):
    from selenium.webdriver import ActionChains

    browser.execute_script("document.querySelector('.wide').scrollLeft = 0")  # or the names would lie over the cell
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    cell = browser.find_element("css selector", "#comparison tbody tr:nth-child(2) td")
    ActionChains(browser).move_to_element(cell).perform()
    assert tip.is_displayed()
    assert tip.text.startswith(f"{TITLES['B']}, bits_per_dim in bits/dim\nmean over 6 seeds: ")
    assert "seed 5: " in tip.text
    mark = browser.find_elements("css selector", "svg .hint")[1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.text.startswith(f"{TITLES['B']}\nbits_per_dim, bits/dim: ")
    first, second = browser.find_elements("css selector", "svg .hint .hint")[:2]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
    shown = []
    for point in (first, second):
        ActionChains(browser).move_to_element(point).perform()
        shown.append(tip.text.splitlines())
    assert shown[0][0] == shown[1][0]  # one line
    assert shown[0][1] != shown[1][1]
    assert shown[0][1].startswith("network evaluations of training: ")
    assert shown[0][2].startswith("held-out bits/dim: ")


@in_a_browser
@pytest.mark.slow
def test_every_plot_and_picture_is_seen(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    figures = "document.querySelectorAll('figure svg, figure img')"
    box = "(each => { const box = each.getBoundingClientRect(); return [box.width, box.height]; })"
    boxes = browser.execute_script(f"return [...{figures}].map{box}")
    # two of likelihood, quality and compute, learning, two over noise, samples; gate, usage, matrix, router of three
    assert len(boxes) == 2 + 1 + 2 + 4 + 4 * 3
    assert all(width > 100 and height > 100 for width, height in boxes)
    titles = {heading.text for heading in browser.find_elements("css selector", "figure h3")}
    assert {"bits/dim against frechet", "frechet against latency", "bits/dim against training compute"} <= titles
    assert not any("$" in text.text for text in browser.find_elements("css selector", "svg text")), "unset mathematics"
    assert {"Where over the noise levels", "Router accuracy over noise level", "Expert × slice"} <= titles


@in_a_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_its_window_and_is_not_blank(folder, table, width):
    with opened(folder / "study.html", width, 900) as driver:
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        driver.execute_script("document.getElementById('comparison').scrollIntoView()")
        pixels = np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("L"))
        assert pixels.shape == (900, width)
        assert 0.005 < (pixels < 128).mean() < 0.5
        title = "'slice-specialised, with routing from the features of an encoder'"
        driver.execute_script(f"document.querySelector('#comparison tbody th').firstChild.textContent = {title}")
        name, cell = (driver.find_element("css selector", f"#comparison tbody {tag}").rect for tag in ("th", "td"))
        assert name["width"] + min(cell["width"], 160) <= width, "a cell fits beside the name that stays"
        box = driver.find_element("css selector", "#comparison tbody tr").rect
        assert box["height"] > 20
        assert (
            float(
                driver.execute_script("return getComputedStyle(document.querySelector('#comparison td')).fontSize")[:-2]
            )
            >= 12
        )
