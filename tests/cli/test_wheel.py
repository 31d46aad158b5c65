"""The wheel is complete: outside a checkout, `moeframe init digits && moeframe run digits.yaml` works."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    "seeds=[0]",
    "experts.0.channels=4",
    "training.steps=2",
    "training.validation_images=4",
    "sampler.steps=2",
    "metrics=[{type: parameters}]",
    "evaluation.samples_shown=2",
    "evaluation.diagnostic_images=4",
)

pytestmark = pytest.mark.slow


def done(*command, folder):
    """What a command prints that must succeed, far from this checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MOEFRAME_PLUGINS")}
    ended = subprocess.run(list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # With the build backend of this environment: a build of its own would need an index.
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    done(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT, folder=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the programs of a new environment: the wheel, and this environment's packages on its path."""
    folder = tmp_path_factory.mktemp("venv")
    done(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    programs, python = folder / "bin", folder / "bin/python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    done(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, folder=folder)
    purelib = done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    # A plain path: its own .pth files, and with them the checkout of an editable install, are not followed.
    (Path(purelib) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_holds_every_spec(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("moeframe/_specs/")}
    specs = ROOT / "specs"
    assert inside == {f"moeframe/_specs/{path.relative_to(specs).as_posix()}" for path in specs.rglob("*.yaml")}


def test_a_spec_of_the_wheel_runs_outside_a_checkout(installed, tmp_path):
    moeframe = installed / "moeframe"
    assert "wrote digits.yaml" in done(moeframe, "init", "digits", folder=tmp_path)
    changes = [part for change in SMALL for part in ("--set", change)]
    assert done(moeframe, "run", "digits.yaml", *changes, folder=tmp_path).endswith("report: runs/digits/report.html\n")
    where = done(installed / "python", "-c", "import moeframe; print(moeframe.__file__)", folder=tmp_path)
    assert str(installed.parent) in where
