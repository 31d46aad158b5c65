"""Every example of the tutorials and how-tos is run: files are written, commands and Python executed, in page order.

A comment before a block may say how a test differs from what a reader does:

    <!-- test: args: OPTIONS -->     add options to the block's run, merge and study commands, to keep the test small
    <!-- test: with: OLD -> NEW -->  replace a text in the block
    <!-- test: fragment -->          a piece of YAML that is parsed only
    <!-- test: skip: REASON -->      not executed
"""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from moeframe.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("tutorials/**/*.md"), *DOCS.glob("how-to/*.md"), DOCS / "concepts/randomness.md"])
BLOCK = re.compile(
    r"^(?:<!-- test: (?P<test>.*?) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FENCES = re.compile(r"^```\w", re.MULTILINE)
TRAINS = re.compile(r"^(moeframe (?:run|merge|study) .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str
    how: str
    """`args`, `with`, `fragment`, `skip`, or nothing."""
    value: str


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        how, _, value = (match["test"] or "").partition(": ")
        found.append(Block(match["language"], match["title"], match["text"], how, value))
    assert len(found) == len(FENCES.findall(text)), f"{page}: a block that this test does not see"
    return found


def content_of(block):
    if block.how != "with":
        return block.text
    old, new = block.value.split(" -> ")
    assert old in block.text
    return block.text.replace(old, new)


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.fixture
def workplace(tmp_path):
    """A folder with the checkout's specs and results, and an environment whose `moeframe` and `pip` are the test's."""
    for name in ("specs", "results"):
        (tmp_path / name).symlink_to(ROOT / name)
    site, programs = tmp_path / "installed", tmp_path / "programs"
    site.mkdir()
    programs.mkdir()
    installer = Path(__file__).with_name("install_plugin.py")
    for name, command in (("moeframe", "-m moeframe.cli"), ("pip", installer), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(site), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PLUGIN_SITE": str(site),
        "OMP_NUM_THREADS": "1",
    }
    return tmp_path, environment


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_example_of_a_page_runs(page, workplace):
    folder, environment = workplace
    for block in blocks_of(page):
        if block.title is not None:
            (folder / block.title).write_text(content_of(block), encoding="utf-8")
        if block.how in ("skip", "fragment") or block.title is not None:
            continue
        if block.language == "sh":
            text = TRAINS.sub(rf"\1 {block.value}", block.text) if block.how == "args" else content_of(block)
            command = ["bash", "-euo", "pipefail", "-c", text]
        elif block.language == "python":
            command = [sys.executable, "-c", content_of(block)]
        else:
            continue
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}:\n{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_spec_of_a_page_validates(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugins = []
    for block in blocks_of(page):
        if block.how == "fragment":
            assert isinstance(yaml.safe_load(block.text), dict)
            continue
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
            plugins += ["--plugin", block.title] if block.title.endswith(".py") else []
        if block.language == "yaml":
            assert block.title, f"{page}: name the file of this block, or mark it as a fragment:\n{block.text}"
            answer = CliRunner().invoke(main, [*plugins, "validate", block.title])
            assert answer.exit_code == 0, answer.output


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_a_page_is_used_by_it(page):
    blocks = blocks_of(page)
    for block in blocks:
        if block.title and block.title != "pyproject.toml":
            rest = "".join(other.text for other in blocks if other is not block)
            assert Path(block.title).stem in rest, f"{page} writes {block.title} and does nothing with it"


def test_the_packaged_plugin_announces_the_file_that_the_tutorial_writes():
    titles = {block.title: block.text for block in blocks_of(DOCS / "tutorials/plugins/index.md")}
    project = tomllib.loads(titles["pyproject.toml"])
    [module] = project["project"]["entry-points"]["moeframe"].values()
    assert f"{module}.py" in titles
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
