"""Files beside the code agree with it: dependency groups, citation, workflow, README."""

import re
import tomllib
from pathlib import Path

import yaml

import moeframe
from moeframe.plugin.discovery import KINDS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_extra_dev_holds_every_dependency_group():
    groups = PROJECT["dependency-groups"]
    grouped = {package for name in ("test", "lint", "docs") for package in groups[name]}
    extra = set(PROJECT["project"]["optional-dependencies"]["dev"])
    assert extra == grouped | {"moeframe[quality,pretrained]"}
    assert groups["dev"] == [{"include-group": name} for name in ("test", "lint", "docs")]


def test_the_citation_has_the_version_and_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == moeframe.__version__
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_workflow_runs_the_script_of_continuous_integration():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    commands = [step.get("run") for step in workflow["jobs"]["run"]["steps"]]
    assert ".ci/run" in commands
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for target in ("demo", "lint", "docs", "test"):
        assert f"make {target}" in script


def test_pre_commit_runs_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff-format", "ruff", "mypy", "lint-imports"}


def test_the_readme_lists_every_component_by_kind(registry):
    for kind in KINDS:
        [row] = re.findall(rf"^\| {kind} \|(.*)\|$", README, re.MULTILINE)
        ours = [item.component.name() for item in registry.components(kind) if item.provider.distribution == "moeframe"]
        assert re.findall(r"`([a-z0-9_]+)`", row) == ours, kind


def test_the_readme_fits_120_lines():
    assert README.count("\n") <= 120


def test_the_readme_shows_the_plugin_of_examples_whole():
    source = (ROOT / "examples/moeframe-myslicer/moeframe_myslicer.py").read_text(encoding="utf-8")
    assert source.partition('"""\n\n')[2].strip() in README
