"""Every link of the repository's Markdown resolves; the site builds strictly and requests nothing from other hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
FILES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
        *(path for path in ROOT.glob("results/**/*.md") if "tables" not in path.parts),
        *ROOT.glob(".github/**/*.md"),
    ]
)
REQUESTS = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\">]+")
NOT_REQUESTED = re.compile(r"rel=\"?(?:canonical|next|prev)")


def anchors_of(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_resolves(path):
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link) or link.startswith("../../actions/"):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{path.name}: no {link}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors_of(found), f"{path.name}: no heading for {link}"


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_another_host(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        html = page.read_text(encoding="utf-8")
        found = [tag for tag in REQUESTS.findall(html) if not NOT_REQUESTED.search(tag)]
        assert not found, f"{page}: {found}"
        assert 'class="arithmatex"' not in html, f"{page}: an equation was left as TeX"
    styles = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.css"))
    assert not re.findall(r"url\(\"?https?:", styles)
