"""study.html and report.html: what a reader does with them in a real browser."""

import json

import pytest
from in_browser import in_a_browser, opened
from small_study import TITLES


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
