"""The generated reference has every command, option, component and setting, and the files that a run writes."""

import doctest
import re
import sys
from pathlib import Path

import click
import pytest

import moeframe
from moeframe.cli import main
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.hookspecs import API_VERSION

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs/generate"))

import settings_tables  # noqa: E402
from command_pages import command_pages  # noqa: E402
from component_pages import component_pages, shipped  # noqa: E402
from file_pages import RUN_FILES, file_pages  # noqa: E402


@pytest.fixture(scope="module")
def components(registry):
    return component_pages(registry, KINDS)


def test_every_command_and_option_is_in_the_reference():
    pages = command_pages(main)
    context = click.Context(main, info_name="moeframe")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert f"[`moeframe {name}`]({name}.md)" in pages["index.md"]
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            shown = parameter.opts if isinstance(parameter, click.Option) else [parameter.make_metavar(ctx=context)]
            for text in shown:
                assert text in pages[f"{name}.md"], f"{name}: {text}"
            if isinstance(parameter, click.Option):
                assert " ".join(parameter.help.split())[:40].replace("|", "\\|") in pages[f"{name}.md"]


def test_options_of_all_commands_are_in_the_index_of_the_command_line():
    index = command_pages(main)["index.md"]
    for parameter in main.params:
        assert parameter.opts[0] in index


def test_every_component_has_a_page_with_each_of_its_settings(registry, components):
    for kind in KINDS:
        assert shipped(registry, kind)
        for component in shipped(registry, kind):
            page = components[f"{kind}/{component.name()}.md"]
            assert component.summary() in page
            for key in set(component.Config.model_fields) - {"type"}:
                assert f"| `{key}` |" in page, f"{kind} {component.name()}: {key}"
            assert f"({component.name()}.md)" in components[f"{kind}/index.md"]


def test_a_setting_shows_its_type_limit_default_and_meaning(components):
    assert "| `steps` | integer ≥ 1 | `50` | number of noise levels" in components["samplers/ddim.md"]
    assert "**required**" in components["datasets/image_folder.md"]


def test_every_section_of_a_spec_and_a_study_is_in_the_reference():
    pages = file_pages(ROOT / "results/engine/digits/results.json")
    for key in ("name", "seeds", "experts", "warm_start", "offload", "validation_every"):
        assert f"`{key}`" in pages["spec.md"]
    for key in ("baseline", "compare", "runs_of", "weights_of"):
        assert f"`{key}`" in pages["study.md"]
    for key in ("interval_method", "per_seed", "unavailable", "role"):
        assert f"`{key}`" in pages["results.md"]


def test_every_field_of_results_json_has_a_meaning():
    page = file_pages(ROOT / "results/engine/digits/results.json")["results.md"]
    assert not re.findall(r"^\| `\w+` \|.*\|  \|$", page, re.MULTILINE)


@pytest.mark.slow
def test_every_file_of_a_run_folder_is_described(tiny_spec, tmp_path):
    moeframe.run(
        tiny_spec, overrides=["slicer={type: color_variance}", "training.warm_start=0.5"], out=tmp_path / "run"
    )
    described = {re.sub(r"seed-N|slice-K", lambda m: m[0][:5], path).rstrip("/") for path in RUN_FILES}
    for path in (tmp_path / "run").rglob("*"):
        parts = path.relative_to(tmp_path / "run").parts[:2]
        if parts[0].startswith(".") or parts == ("seed-0",):
            continue
        name = re.sub(r"seed-\d+|slice-\d+", lambda m: m[0][:5], "/".join(parts))
        assert name in described, f"the run folder's page does not describe {name}"


def test_the_page_on_versions_names_the_plugin_api_of_this_release():
    text = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    assert f"API has version **{API_VERSION}**" in text
    assert f"MOEFRAME_API = {API_VERSION}" in text


def test_examples_of_the_table_writer_hold():
    assert doctest.testmod(settings_tables).failed == 0
