"""Pages in Chromium at a chosen width and theme, and axe-core where `make browser` fetched it."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
in_a_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
)
AXE = Path(__file__).parents[2] / ".browser/package/axe.min.js"
with_axe = pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: `make browser` fetches it")


@contextmanager
def opened(path, width, height, theme="light"):
    """A browser that shows the page."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    looks = ("headless=new", "disable-gpu", "hide-scrollbars", "window-size=1500,1200")
    for argument in (*looks, "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(300)
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        driver.get(path.as_uri())
        yield driver
    finally:
        driver.quit()


def unfold(driver):
    driver.execute_script("document.querySelectorAll('details').forEach((each) => (each.open = true))")


def requests_of(driver):
    """What the page asked for, the page itself included."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def faults_of(driver):
    """Serious and critical findings of axe-core, with an element each."""
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    run = """
    const done = arguments[arguments.length - 1];
    axe.run().then((found) => done(found.violations.map((v) => [v.impact, v.id, v.nodes[0].html.slice(0, 120)])));
    """
    return [found for found in driver.execute_async_script(run) if found[0] in ("serious", "critical")]
