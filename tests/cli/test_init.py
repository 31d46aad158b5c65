"""`moeframe init`: lists the specs, writes one with the files it is based on, and overwrites nothing unasked."""

import subprocess
import sys

import pytest
from command_line import call, refusal

from moeframe.cli.examples import spec_names, specs_folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_every_spec_is_listed_with_its_first_line(here):
    lines = call("init").stdout.splitlines()
    assert [line.split()[0] for line in lines] == spec_names(specs_folder())
    assert "digits  " in lines[2]
    assert "four experts and a soft gate on scikit-learn's 8x8 digits" in lines[2]
    assert list(here.iterdir()) == []


def test_a_spec_is_written_and_the_next_command_is_named(here):
    assert call("init", "digits").stdout == "wrote digits.yaml\nnext: moeframe run digits.yaml\n"
    assert (here / "digits.yaml").read_bytes() == (specs_folder() / "digits.yaml").read_bytes()


@pytest.mark.parametrize("name", spec_names(specs_folder()))
def test_every_spec_validates_where_it_was_written(here, name):
    assert call("init", name).exit_code == 0
    assert call("validate", f"{name}.yaml").exit_code == 0


def test_a_base_is_written_beside_the_spec(here):
    assert call("init", "trunk/digits_independent").exit_code == 0
    assert sorted(path.relative_to(here).as_posix() for path in here.rglob("*.yaml")) == [
        "digits.yaml",
        "trunk/digits_independent.yaml",
    ]


def test_a_merge_comes_with_its_experts_and_the_commands_in_order(here):
    lines = call("init", "trade_off/digits_merge").stdout.splitlines()
    assert (here / "trade_off/digits_quality.yaml").is_file()
    assert [line for line in lines if line.startswith("next: ")] == [
        "next: moeframe run trade_off/digits_quality.yaml",
        "next: moeframe run trade_off/digits_likelihood.yaml",
        "next: moeframe merge trade_off/digits_merge.yaml --sweep 9",
    ]


def test_a_spec_that_needs_another_run_is_itself_the_last_command(here):
    lines = call("init", "weight_space/digits_slices").stdout.splitlines()
    assert lines[-2:] == [
        "next: moeframe run trade_off/digits_quality.yaml",
        "next: moeframe run weight_space/digits_slices.yaml",
    ]


def test_a_study_comes_with_its_spec(here):
    lines = call("init", "studies/digits").stdout.splitlines()
    assert lines[-1] == "next: moeframe study studies/digits.yaml --jobs 2"
    assert "next: python benchmarks/digit_features.py (in a checkout of moeframe)" in lines
    assert (here / "digits.yaml").is_file()


def test_a_file_that_differs_is_kept_unless_forced(here):
    (here / "digits.yaml").write_text("mine")
    message = refusal(2, "init", "digits_single")
    assert message == "error: digits.yaml: already exists and differs; --force overwrites it"
    assert [path.name for path in here.iterdir()] == ["digits.yaml"]
    assert (here / "digits.yaml").read_text() == "mine"
    assert call("init", "digits_single", "--force").exit_code == 0
    assert (here / "digits.yaml").read_text() != "mine"


def test_the_same_file_may_be_written_twice(here):
    call("init", "digits")
    assert call("init", "digits").exit_code == 0


def test_an_unknown_name_gets_a_suggestion(here):
    assert refusal(2, "init", "digit") == (
        "error: unknown spec 'digit'; did you mean 'digits'? `moeframe init` lists all"
    )


def test_listing_needs_no_torch():
    program = (
        "import sys, moeframe.cli\ntry: moeframe.cli.main(['init'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'pydantic', 'numpy', 'rich', 'pluggy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
