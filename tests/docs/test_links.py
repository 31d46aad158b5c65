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


WORKS = {"article": "article", "VDM": "vdm", "EDM": "edm", "DDM": "ddm", "2511.19434": "switching"}
"""How a text names a work, and its anchor in docs/references.md."""
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]


def anchors_of(path):
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_work_is_linked_where_a_page_first_names_it(path):
    if path.name == "references.md":
        return
    text = re.sub(r"!\[[^\]]*\]|^#.*$", "", CODE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    for name, anchor in WORKS.items():
        first = re.search(rf"(?<![\w/.#-]){re.escape(name)}(?![\w.-])", text)
        if first:
            linked = re.compile(rf"\[[^\]]*{re.escape(name)}[^\]]*\]\([^)]*references\.md#{anchor}\)")
            found = linked.search(text)
            assert found is not None, f"{path.name} names {name} and does not link docs/references.md#{anchor}"
            assert found.start() <= first.start(), f"{path.name}: {name} is named before its link"


def test_references_link_every_work():
    text = (ROOT / "docs/references.md").read_text(encoding="utf-8")
    for anchor in WORKS.values():
        entry = text.partition(f'<a id="{anchor}">')[2].partition("<a id=")[0]
        assert re.search(r"\]\(https://", entry), anchor


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
