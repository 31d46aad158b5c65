"""study.html and report.html in a real browser: both widths, both themes, and what a reader does with them."""

import re
from importlib.resources import files

import pytest
from in_browser import faults_of, in_a_browser, opened, requests_of, unfold, with_axe
from small_run import make_folder
from small_study import TITLES, write_study_folder

from moeframe.report.run.page import write_report
from moeframe.report.study.page import write_study

LOOKS = [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Both pages; the study has titles as long as those of real ones."""
    root = tmp_path_factory.mktemp("pages")
    folder = write_study_folder(root / "little")
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text.replace(TITLES["D"], "D: slice-specialised, routing from encoder features"))
    write_study(folder)
    return {"study": folder / "study.html", "run": write_report(make_folder(root / "run"))}


@pytest.fixture(scope="module")
def browser(pages):
    with opened(pages["study"], 1400, 900) as driver:
        yield driver


def names(driver, table="comparison"):
    rows = "document.querySelectorAll(`#${arguments[0]} tbody tr:not([hidden])`)"
    return "".join(driver.execute_script(f"return [...{rows}].map((each) => each.dataset.name)", table))


def click_heading(driver, text):
    [button] = [b for b in driver.find_elements("css selector", "#comparison thead button") if b.text.startswith(text)]
    button.click()


@in_a_browser
@pytest.mark.slow
@pytest.mark.parametrize("page", ["study", "run"])
@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_nothing_is_clipped_asked_for_or_reported(pages, page, width, theme):
    with opened(pages[page], width, 1000, theme) as driver:
        for _ in range(2):
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            unfold(driver)
        if width == 1400:
            wide = "[...document.querySelectorAll('.wide')].map((each) => each.scrollWidth - each.clientWidth)"
            assert set(driver.execute_script(f"return {wide}")) <= {0}, "a column is clipped"
        beyond = driver.execute_script(
            """
            const out = [];
            for (const svg of document.querySelectorAll("figure svg[role=img]")) {
              const box = svg.getBoundingClientRect();
              if (!box.width) continue;
              for (const text of svg.querySelectorAll("text")) {
                const own = text.getBoundingClientRect();
                const across = own.left < box.left - 3 || own.right > box.right + 3;
                const up = own.top < box.top - 3 || own.bottom > box.bottom + 3;
                if (across || up)
                  out.push([svg.getAttribute("aria-label"), text.textContent]);
              }
            }
            return out;
            """
        )
        assert beyond == [], "labels that leave their plot"
        dark = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert dark == ("rgb(18, 22, 27)" if theme == "dark" else "rgb(255, 255, 255)")
        assert driver.get_log("browser") == []
        asked = requests_of(driver)
        assert asked, "the page itself"
        assert all(url.startswith(("file:", "data:")) for url in asked)


@in_a_browser
@with_axe
@pytest.mark.slow
@pytest.mark.parametrize("page", ["study", "run"])
@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_axe_finds_no_serious_fault(pages, page, width, theme):
    with opened(pages[page], width, 1000, theme) as driver:
        unfold(driver)
        assert faults_of(driver) == []


@in_a_browser
@pytest.mark.slow
@pytest.mark.parametrize("page", ["study", "run"])
def test_printing_opens_the_folds_and_closes_them_again(pages, page):
    closed = "return document.querySelectorAll('details:not([open])').length"
    with opened(pages[page], 1400, 900) as driver:
        before = driver.execute_script(closed)
        assert before > 3
        driver.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert driver.execute_script(closed) == 0
        driver.execute_script("dispatchEvent(new Event('afterprint'))")
        assert driver.execute_script(closed) == before


@in_a_browser
@pytest.mark.slow
def test_a_phone_shows_one_metric_beside_the_name_that_stays(pages):
    from selenium.webdriver.support.ui import Select

    with opened(pages["study"], 400, 900) as driver:
        choice = driver.find_element("css selector", "select[data-choose]")
        headings = "[...document.querySelectorAll('#comparison thead th')]"
        shown = f"return {headings}.filter((each) => each.offsetWidth).map((each) => each.innerText)"
        assert [text.split(" ↓")[0] for text in driver.execute_script(shown)] == ["variant", "bits/dim"]
        Select(choice).select_by_visible_text("Fréchet distance")
        assert [text.split(" ↓")[0] for text in driver.execute_script(shown)] == ["variant", "Fréchet distance"]
        unfold(driver)
        stays = """
        const wide = document.querySelector("#differences").parentElement;
        wide.scrollLeft = 200;
        return [wide.scrollLeft, document.querySelector("#differences tbody th").getBoundingClientRect().left];
        """
        scrolled, left = driver.execute_script(stays)
        assert scrolled > 100
        assert 0 <= left < 40
    with opened(pages["study"], 1400, 900) as driver:
        assert len(driver.execute_script(shown)) > 5
        assert not driver.find_element("css selector", "select[data-choose]").is_displayed()


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
    unfold(browser)
    field = browser.find_element("css selector", "input[data-filter=differences]")
    field.send_keys("K = 4")
    assert names(browser, "differences") == "B"
    assert browser.find_element("css selector", "output[data-count=differences]").text == "1 of 4 rows"
    field.clear()
    field.send_keys(" ")
    assert names(browser, "differences") == "ABCD"


@in_a_browser
@pytest.mark.slow
def test_pointing_at_a_cell_or_a_mark_shows_its_values(browser):
    from selenium.webdriver import ActionChains

    tip = browser.find_element("id", "tip")
    cell = browser.find_element("css selector", "#comparison tbody tr[data-name=B] td")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    ActionChains(browser).move_to_element(cell).perform()
    assert tip.is_displayed()
    assert tip.text.startswith(f"{TITLES['B']}, bits/dim\nmean over 6 seeds: ")
    assert "minus the baseline: -0." in tip.text
    assert "seed 5: " in tip.text
    mark = browser.find_elements("css selector", ".on-desktop svg .hint")[1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.text.startswith(f"{TITLES['B']}\nbits/dim (lower is better): ")
    browser.find_element("tag name", "body").send_keys("\ue00c")
    assert not tip.is_displayed(), "Escape hides it"


@in_a_browser
@pytest.mark.slow
def test_every_plot_and_picture_is_seen(browser):
    unfold(browser)
    figures = (
        "[...document.querySelectorAll('figure svg[role=img], figure img')].filter((each) => each.checkVisibility())"
    )
    box = "(each => { const box = each.getBoundingClientRect(); return [box.width, box.height]; })"
    boxes = browser.execute_script(f"return {figures}.map{box}")
    # the headline; samples of four; learning; two by noise level; three costs; gate, usage, matrix, router of three
    assert len(boxes) == 1 + 4 + 1 + 2 + 3 + 4 * 3
    assert all(width > 100 and height > 100 for width, height in boxes)
    forests = browser.execute_script("return document.querySelectorAll('ol.forest').length")
    assert forests == 3, "bits/dim, Fréchet distance, latency"


def test_colours_stand_out_from_the_page_in_both_themes():
    css = files("moeframe.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(themes) == 2
    for theme in themes:
        for name, colour in theme.items():
            if name.startswith(("group", "series", "rest")):
                assert contrast(colour, theme["paper"]) >= 3, name
            if name in ("ink", "quiet", "accent", "warn"):
                assert contrast(colour, theme["soft"]) >= 4.5, name


def contrast(one, other):
    """WCAG 2.2's contrast ratio."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
