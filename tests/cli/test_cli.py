"""The command line: what each command prints, its exit status, and that help is quick."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import call
from official_celeba_hq import write_celeba_hq
from official_cifar10 import write_cifar10
from official_lsun import write_lsun
from PIL import Image

import moeframe
from moeframe import cli
from moeframe.plugin.discovery import KINDS, installed_entry_points
from moeframe.spec.loader import load_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, tiny_text):
    """A finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(tiny_text)
    result = call("run", folder / "tiny.yaml", "--out", folder / "run")
    return folder / "run", result


@pytest.fixture
def broken_plugin_installed(monkeypatch, on_disk):
    points = [*installed_entry_points(), on_disk("raises_on_import")]
    monkeypatch.setattr("moeframe.plugin.discovery.installed_entry_points", lambda: points)
    return "broken plugin: dist-raises_on_import 1.2 (entry point 'raises_on_import'): RuntimeError: libfoo is missing"


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cli.main.commands)
def test_every_command_has_help_that_names_it(name):
    result = call(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: moeframe {name} ")
    assert cli.main.commands[name].help


def test_the_version_is_the_packages():
    assert call("--version").stdout == f"moeframe, version {moeframe.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["plugins", "nonsense"]])
def test_help_and_usage_errors_wait_for_no_heavy_import(arguments):
    program = (
        "import sys, moeframe.cli\n"
        f"try: moeframe.cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pydantic', 'numpy', 'rich', 'pluggy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_kinds_of_the_command_line_are_those_of_the_plugins():
    assert set(KINDS) == set(cli.KINDS)


# --- validate, plugins, schema, doctor --------------------------------------------------------------------------------


def test_validate_says_what_it_found(tiny_spec):
    result = call("validate", tiny_spec)
    assert (result.exit_code, result.stdout) == (0, f"{tiny_spec}: valid: 'tiny', 2 experts, 1 seed\n")


@pytest.mark.parametrize("spec", ["specs/digits.yaml", "examples/moeframe-myslicer/parity.yaml"])
def test_the_resolved_spec_validates_to_the_same_hash(registry, tmp_path, spec):
    overrides = ["training.steps=7", "training.learning_rate=1e-4"]
    arguments = [part for override in overrides for part in ("--set", override)]
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(call("validate", ROOT / spec, *arguments, "--resolved").stdout)
    assert call("validate", resolved).exit_code == 0
    assert load_spec(resolved, registry).hash() == load_spec(ROOT / spec, registry, overrides).hash()
    assert yaml.safe_load(resolved.read_text())["training"]["weight_decay"] == 0.01


def test_plugins_prints_a_json_list_with_the_documented_keys():
    rows = json.loads(call("plugins", "--json").stdout)
    for row in rows:
        assert list(row) == ["name", "kind", "distribution", "version", "summary", "config_schema"]
    assert {row["kind"] for row in rows} == set(KINDS)
    assert {"name": "parity", "distribution": "moeframe-myslicer"}.items() <= next(
        row.items() for row in rows if row["name"] == "parity"
    )


@pytest.mark.parametrize("kind", cli.KINDS)
def test_plugins_lists_one_kind(registry, kind):
    assert [row["name"] for row in json.loads(call("plugins", kind, "--json").stdout)] == registry.names(kind)
    text = call("plugins", kind).stdout
    assert text.startswith(f"{kind}\n")
    assert all(f"  {name} " in text for name in registry.names(kind))


def test_schema_prints_json():
    assert json.loads(call("schema").stdout)["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_doctor_without_a_spec_looks_at_everything_installed(registry):
    result = call("doctor")
    assert result.exit_code == 0
    for name in registry.names("metrics"):
        assert f"metric {name}: " in result.stdout


def test_doctor_with_a_spec_that_can_run_exits_with_0(tiny_spec):
    result = call("doctor", tiny_spec)
    assert result.exit_code == 0
    assert "ok       dataset gaussian: complete" in result.stdout


def test_doctor_with_missing_data_exits_with_2_and_says_what_to_do(tiny_spec, tmp_path):
    result = call("doctor", tiny_spec, "--set", f"dataset={{type: image_folder, root: {tmp_path}/none, size: 8}}")
    assert result.exit_code == 2
    assert f"missing  dataset image_folder: image_folder: root {tmp_path}/none does not exist; put" in result.stdout


def test_doctor_names_the_file_that_a_slicer_lacks(tiny_spec, tmp_path):
    change = f"slicer={{type: semantic, labels: {tmp_path}/none.csv}}"
    result = call("doctor", tiny_spec, "--set", change)
    assert result.exit_code == 2
    assert f"missing  slicer semantic: no file {tmp_path}/none.csv; labels is a CSV file" in result.stdout
    assert (
        "ok       slicer color_variance: complete"
        in call("doctor", tiny_spec, "--set", "slicer={type: color_variance}").stdout
    )


@pytest.mark.parametrize(
    ("spec", "write", "extra", "needed"),
    [
        ("cifar10", write_cifar10, "dataset.verify=false", "data_batch_3"),
        ("celeba_hq", write_celeba_hq, "dataset.verify=false", "CelebAMask-HQ-attribute-anno.txt"),
        ("lsun_church", write_lsun, "dataset.verify=false", "church_outdoor_val_lmdb"),
    ],
)
def test_doctor_says_whether_data_in_an_official_format_is_complete(tmp_path, spec, write, extra, needed):
    root = write(tmp_path / "data")
    arguments = ("doctor", ROOT / f"specs/{spec}.yaml", "--set", f"dataset.root={root}", "--set", extra)
    assert f"ok       dataset {spec}: complete" in call(*arguments).stdout
    part = next(root.rglob(needed))
    part.rename(part.with_name("gone"))
    result = call(*arguments)
    assert result.exit_code == 2
    [line] = [line for line in result.stdout.splitlines() if line.startswith(f"missing  dataset {spec}: ")]
    assert needed in line


# --- a broken plugin is never silent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "plugins", "schema", "run"])
@pytest.mark.slow
def test_a_broken_plugin_is_a_warning_and_does_not_stop_a_command(broken_plugin_installed, tiny_spec, command):
    arguments = {"validate": [tiny_spec], "run": [tiny_spec, "--out", tiny_spec.parent / "out"]}.get(command, [])
    result = call(command, *arguments)
    assert result.exit_code == 0
    assert f"warning: {broken_plugin_installed}" in result.stderr
    assert "warning" not in result.stdout


def test_doctor_reports_a_broken_plugin(broken_plugin_installed):
    assert "missing  plugin: dist-raises_on_import" in call("doctor").stdout


def test_a_spec_that_needs_the_broken_plugin_exits_with_2(broken_plugin_installed, tiny_spec):
    result = call("validate", tiny_spec, "--set", "gate.type=mine")
    assert result.exit_code == 2
    assert "error: --set gate.type=mine: gate.type: unknown gate 'mine'; installed: " in result.stderr
    assert "a plugin that may supply it is broken: dist-raises_on_import 1.2" in result.stderr


# --- run, sample, evaluate --------------------------------------------------------------------------------------------


def test_run_prints_the_metrics_and_where_the_report_is(tiny_run):
    folder, result = tiny_run
    assert result.exit_code == 0
    assert "network calls" in result.stdout
    assert result.stdout.endswith(f"report: {folder}/report.html\n")
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_run_writes_below_runs_unless_told(tiny_spec, monkeypatch):
    monkeypatch.chdir(tiny_spec.parent)
    assert call("run", "tiny.yaml", "--set", "training.steps=1").stdout.endswith("report: runs/tiny/report.html\n")
    assert (tiny_spec.parent / "runs/tiny/results.json").is_file()


@pytest.mark.slow
def test_third_party_plugin_runs_end_to_end(tmp_path):
    small = [
        "training.steps=2",
        "training.validation_images=4",
        "experts.0.channels=4",
        "sampler.steps=2",
        "metrics=[]",
    ]
    small += ["evaluation.samples_shown=2", "evaluation.diagnostic_images=4"]
    arguments = [part for override in small for part in ("--set", override)]
    result = call("run", ROOT / "examples/moeframe-myslicer/parity.yaml", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 0
    slices = np.load(tmp_path / "run/seed-0/slices.npz")["train"]
    labels = moeframe.load(tmp_path / "run").assembly.train.labels
    assert (slices == (labels % 2).numpy()).all()


def test_sample_writes_a_grid_or_the_levels(tiny_run, tmp_path):
    folder, _ = tiny_run
    result = call("sample", folder, "-n", 3, "--out", tmp_path / "new/grid.png")
    assert (result.exit_code, result.stdout) == (0, f"3 images in {tmp_path}/new/grid.png\n")
    with Image.open(tmp_path / "new/grid.png") as grid:
        assert grid.width > 2 * grid.height  # three images in a row
    assert call("sample", folder, "-n", 3, "--out", tmp_path / "levels.npz").exit_code == 0
    levels = np.load(tmp_path / "levels.npz")["images"]
    assert levels.shape == (3, 1, 4, 4)
    assert call("sample", folder, "-n", 3, "--out", tmp_path / "pictures").exit_code == 0
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["000000.png", "000001.png", "000002.png"]
    with Image.open(pictures[2]) as picture:
        assert np.array_equal(np.asarray(picture), np.rint(levels[2, 0] * 255 / 7).astype(np.uint8))


@pytest.mark.slow
def test_evaluate_measures_again(tiny_spec):
    folder = tiny_spec.parent / "run"
    assert call("run", tiny_spec, "--out", folder, "--set", "training.steps=1").exit_code == 0
    result = call("evaluate", folder, "--set", "metrics=[{type: bits_per_dim, repeats: 2}]")
    assert result.exit_code == 0
    assert list(json.loads((folder / "results.json").read_text())["metrics"]) == ["bits_per_dim"]


def test_an_interrupted_command_leaves_no_traceback(monkeypatch, tiny_spec):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("moeframe.runs.pipeline.run", interrupted)
    result = call("run", tiny_spec)
    assert result.exit_code == 1
    assert result.stderr.endswith("error: interrupted\n")


@pytest.mark.slow
def test_a_closed_pipe_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m moeframe.cli schema | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
