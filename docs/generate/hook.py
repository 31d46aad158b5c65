"""mkdocs hook: generates the reference from the code, copies pictures of results, turns TeX into MathML.

MathML is drawn by the browser itself, so equations need no script and no font from elsewhere.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_pages import command_pages
from component_pages import component_pages, shipped
from file_pages import file_pages
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from settings_tables import table

from moeframe.cli import main
from moeframe.interfaces.component import Component
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.kinds import ALL_KINDS
from moeframe.plugin.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ("*.png", "*.jpg", "*.svg", "*.html")
INTERFACE_OPTIONS = "    options:\n      members_order: source\n"
MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def reference() -> dict[str, str]:
    """Path below reference/ to Markdown, of every generated page."""
    registry = Registry.installed()
    components = component_pages(registry, KINDS)
    return {
        **{f"cli/{name}": text for name, text in command_pages(main).items()},
        **{f"components/{name}": text for name, text in components.items()},
        "components/index.md": _kinds_page(registry),
        **{f"interfaces/{_module(base)}.md": _interface_page(kind, base) for kind, base in KINDS.items()},
        **file_pages(ROOT / "results/engine/digits/results.json"),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, where mkdocs.yml has the entry `Reference`."""
    assert config.nav is not None
    pages = reference()
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = [*_nav(pages), *entry["Reference"]]
    config.extra["generated"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures and pages of results/."""
    for path, text in config.extra["generated"].items():
        files.append(File.generated(config, f"reference/{path}", content=text))
    for pattern in PICTURES:
        for path in sorted((ROOT / "results").rglob(pattern)):
            if "runs" not in path.relative_to(ROOT / "results").parts:
                uri = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to the repository's results/ into links to the copies in the site: both readers see the pictures."""
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"]({up}../results/", f"]({up}results/")


def on_page_content(content: str, **_: Any) -> str:
    """Replace TeX by MathML."""
    return MATHS.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tex = html.unescape(found[3]).strip()
    return str(convert(tex, display="block" if found[2] == "[" else "inline"))


def _nav(pages: dict[str, str]) -> list[Any]:
    """Command line, files, components by kind, interfaces."""
    commands = [path for path in pages if path.startswith("cli/") and path != "cli/index.md"]
    kinds = [{kind.capitalize(): [f"reference/components/{kind}/index.md", *_of_kind(pages, kind)]} for kind in KINDS]
    return [
        {"Command line": ["reference/cli/index.md", *(f"reference/{path}" for path in commands)]},
        {"Files": [f"reference/{name}.md" for name in ("spec", "study", "run-folder", "results")]},
        {"Components": ["reference/components/index.md", *kinds]},
        {"Interfaces": [f"reference/interfaces/{_module(base)}.md" for base in KINDS.values()]},
    ]


def _of_kind(pages: dict[str, str], kind: str) -> Iterator[str]:
    for path in pages:
        if path.startswith(f"components/{kind}/") and not path.endswith("/index.md"):
            yield f"reference/{path}"


def _kinds_page(registry: Registry) -> str:
    rows = [
        (
            f"[{kind.plural}]({kind.plural}/index.md)",
            kind.summary,
            " ".join(f"[`{one.name()}`]({kind.plural}/{one.name()}.md)" for one in shipped(registry, kind.plural)),
        )
        for kind in ALL_KINDS
    ]
    return f"# Components\n\nWhat moeframe ships, by kind.\n\n{table(('kind', 'what it is', 'components'), rows)}"


def _interface_page(kind: str, base: type[Component]) -> str:
    return (
        f"# {base.__name__}\n\nThe abstract class of [{kind}](../components/{kind}/index.md); a plugin returns its own "
        f"from the hook `moeframe_{kind}`.\n\n::: {base.__module__}\n{INTERFACE_OPTIONS}"
    )


def _module(base: type[Component]) -> str:
    return base.__module__.rsplit(".", 1)[1]
