"""--plugin FILE.py: a plugin from a file works in every command and process; a broken one is named with its line."""

import json
import os
import sys

import pytest
from command_line import call, refusal

from moeframe.plugin.files import PLUGIN_FILES
from moeframe.plugin.registry import Registry

GATE = """\
from typing import Literal

from beside_{stem} import WEIGHT
from moeframe import Gate, hookimpl


class Halves(Gate):
    \"\"\"The same weight for each of two experts.\"\"\"

    class Config(Gate.Config):
        type: Literal["{name}"] = "{name}"

    def forward(self, z, log_snr):
        return WEIGHT * z.new_ones(len(z), self.n_experts)


@hookimpl
def moeframe_gates():
    return [Halves]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin file with a gate of the same name, and a module beside it that it imports."""
    monkeypatch.delenv(PLUGIN_FILES, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def write(name, text=GATE):
        path = tmp_path / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(stem=name, name=name))
        (path.parent / f"beside_{name}.py").write_text("WEIGHT = 0.5\n")
        written.append(name)
        return path

    yield write
    for name in written:
        if getattr(sys.modules.get(name), "__file__", "").startswith(str(tmp_path)):
            del sys.modules[name]
        sys.modules.pop(f"beside_{name}", None)


def test_a_run_uses_a_gate_from_a_file_and_what_the_file_imports(plugin, tiny_spec, tmp_path):
    path = plugin("halves_of_run")
    gate = ("--set", "gate={type: halves_of_run}", "--set", "training.steps=1", "--out", tmp_path / "run")
    result = call("--plugin", path, "run", tiny_spec, *gate)
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr


def test_the_provider_is_the_name_of_the_file(plugin):
    path = plugin("halves_listed")
    [row] = [
        row
        for row in json.loads(call("--plugin", path, "plugins", "gates", "--json").stdout)
        if "halves" in row["name"]
    ]
    assert (row["distribution"], row["version"]) == ("halves_listed.py", "")
    assert "[halves_listed.py]" in call("--plugin", path, "plugins", "gates").stdout


def test_several_files_are_given_by_repeating_the_option_or_in_the_environment(plugin, monkeypatch):
    paths = [plugin("halves_one"), plugin("halves_two"), plugin("halves_three")]
    monkeypatch.setenv(PLUGIN_FILES, f"{paths[0]}{os.pathsep}{paths[1]}")
    text = call("--plugin", paths[2], "--plugin", paths[0], "plugins", "gates").stdout
    assert all(f"halves_{name} " in text for name in ("one", "two", "three"))
    assert os.environ[PLUGIN_FILES] == f"{paths[0]}{os.pathsep}{paths[1]}"


def test_a_command_leaves_no_plugin_behind(plugin):
    call("--plugin", plugin("halves_gone"), "plugins", "gates")
    assert PLUGIN_FILES not in os.environ
    assert "halves_gone" not in Registry.installed().names("gates")


@pytest.mark.slow
def test_the_processes_of_a_study_load_the_file(plugin, study_file, tmp_path):
    path = plugin("halves_of_study")
    (tmp_path / "tiny.yaml").write_text(
        (tmp_path / "tiny.yaml").read_text().replace("type: softmax, width: 4", "type: halves_of_study")
    )
    study_file.write_text(
        "name: with_file\nspec: tiny.yaml\nseeds: [0]\nbaseline: base\n"
        "variants: {base: {title: base}, longer: {title: longer, set: {training.steps: 6}}}\n"
    )
    result = call("--plugin", path, "study", study_file, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output


BROKEN = {
    "raises": ("import os\n\nraise RuntimeError('libfoo is missing')\n", "3: RuntimeError: libfoo is missing"),
    "syntax": ("x = 1\ndef f(:\n", "2: SyntaxError: "),
    "exits": ("import sys\nsys.exit(3)\n", "2: it called exit(3) while it was loaded"),
    "imports": ("import no_such_module_at_all\n", "1: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "no_hook": ("x = 1\n", " it implements no moeframe hook; "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_a_warning_with_its_line_and_stops_no_command_without_need(plugin, tiny_spec, kind):
    text, cause = BROKEN[kind]
    path = plugin(f"broken_{kind}", text)
    result = call("--plugin", path, "validate", tiny_spec)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: broken plugin: {path}:{cause}")
    assert "Traceback" not in result.stderr


def test_a_spec_that_needs_a_broken_file_is_refused_naming_it(plugin, tiny_spec):
    path = plugin("broken_needed", BROKEN["raises"][0])
    message = refusal(2, "--plugin", path, "validate", tiny_spec, "--set", "gate.type=mine")
    assert f"a plugin that may supply it is broken: {path}:3: RuntimeError: libfoo is missing" in message


def test_a_file_with_the_name_of_another_module_is_refused(plugin):
    path = plugin("numpy")
    warning = call("--plugin", path, "plugins", "gates").stderr
    assert warning.startswith(f"warning: broken plugin: {path}: ImportError: the name 'numpy' is also that of ")
    assert warning.endswith("; rename the file\n")


def test_a_missing_file_is_refused_at_once(tmp_path):
    message = refusal(2, "--plugin", tmp_path / "no.py", "plugins")
    assert message.startswith("error: Invalid value for '--plugin': File ")


def test_a_missing_file_in_the_environment_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv(PLUGIN_FILES, str(tmp_path / "no.py"))
    result = call("plugins", "gates")
    assert result.exit_code == 0
    assert f"warning: broken plugin: {tmp_path}/no.py: ImportError: no such file; " in result.stderr


def test_a_file_that_claims_an_installed_name_is_a_conflict_naming_both(plugin):
    path = plugin("softmax_again", GATE.replace('"{name}"', '"softmax"'))
    assert "gate 'softmax' is supplied by moeframe " in (warning := call("--plugin", path, "plugins", "gates").stderr)
    assert "softmax_again.py" in warning
