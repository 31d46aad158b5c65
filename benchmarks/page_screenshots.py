"""Take the pictures of results/pages: both pages at 1400 px in light and at 400 px in dark.

python benchmarks/page_screenshots.py STUDY_FOLDER RUN_FOLDER     # needs Debian's chromium and chromium-driver
"""

import base64
import io
import sys
from pathlib import Path

from PIL import Image

OUT = Path(__file__).resolve().parent.parent / "results/pages"
LOOKS = (("1400-light", 1400, 1500, "light"), ("400-dark", 400, 1500, "dark"))


def main(study: Path, run: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "disable-gpu", "hide-scrollbars", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        for name, page in (("study", study / "study.html"), ("run", run / "report.html")):
            for look, width, height, theme in LOOKS:
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
                driver.get(page.resolve().as_uri())
                shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
                picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
                path = OUT / f"{name}-{look}.png"
                picture.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
                print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    finally:
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
