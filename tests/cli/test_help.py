"""Help: complete sentences within 80 columns, shell completion, one prefix for errors, one meaning per option."""

import json
import os
import subprocess
import sys

import click
import pytest
from command_line import call, refusal

from moeframe import cli

PAGES = [(), *((name,) for name in cli.main.commands)]


@pytest.mark.parametrize("command", PAGES, ids=lambda command: " ".join(command) or "moeframe")
def test_help_fits_80_columns_and_cuts_no_sentence(command):
    text = call(*command, "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("[ARGS]...", "")


def test_the_command_list_has_a_whole_sentence_for_each_command():
    text = call("--help").stdout
    for name, command in cli.main.commands.items():
        first = command.help.split("\n\n")[0]
        assert f"  {name} " in text
        assert first in text
        assert first.endswith(".")


def test_an_option_of_one_name_has_one_meaning():
    meanings = {}
    for command in cli.main.commands.values():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                meanings.setdefault(option.opts[0], set()).add(option.name)
    shared = {"--run-seed", "--noise-seed", "--set", "--device", "--json", "--quiet", "-q", "--fresh"}
    assert all(len(meanings[name]) == 1 for name in shared & meanings.keys())
    assert "--seed" not in meanings


def test_the_command_alone_shows_the_help_and_not_an_error():
    done = call()
    assert done.exit_code == 2
    assert (done.stdout + done.stderr).startswith("Usage: moeframe")
    assert "error:" not in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_help_says_how_to_get_shell_completion(shell):
    assert f"_MOEFRAME_COMPLETE={shell}_source moeframe" in call("--help").stdout


def completed(words, **environment):
    """What a shell is offered for the last of the words."""
    program = "from moeframe.cli import main; main(prog_name='moeframe')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_commands(shell):
    position = {"COMP_CWORD": "va"} if shell == "fish" else {}  # fish hands over the word, the others its number
    offered = completed(["moeframe", "va"], _MOEFRAME_COMPLETE=f"{shell}_complete", **position).split()
    assert any("validate" in word for word in offered)


def test_completion_offers_kinds_and_specs():
    assert "plain,gates" in completed(["moeframe", "plugins", "ga"], _MOEFRAME_COMPLETE="bash_complete")
    assert "plain,studies/digits" in completed(["moeframe", "init", "stud"], _MOEFRAME_COMPLETE="bash_complete")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_has_a_script_to_source(shell):
    assert "_MOEFRAME_COMPLETE" in completed(["moeframe"], _MOEFRAME_COMPLETE=f"{shell}_source")


def test_each_of_several_errors_has_the_prefix(tiny_spec):
    tiny_spec.write_text(tiny_spec.read_text().replace("type: softmax", "type: sofmax") + "nonsense: 1\n")
    lines = call("validate", tiny_spec).stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {tiny_spec}:") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run"], "error: Missing argument 'SPEC'."),
        (["nonsense"], "error: No such command 'nonsense'."),
        (["run", "--nonsense", "x"], "error: No such option"),
        (["sample", "r", "-n", "0"], "error: Invalid value for '-n': 0 is not in the range x>=1."),
    ],
)
def test_usage_errors_have_the_same_prefix_and_exit_with_2(arguments, error):
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: moeframe ")
    assert result.stderr.splitlines()[-1].startswith(error)


def test_the_old_name_of_the_noise_seed_works_with_a_warning(tmp_path):
    result = call("sample", tmp_path, "--seed", "3")
    assert "warning: --seed of `moeframe sample` is called --noise-seed now" in result.stderr
    assert f"error: {tmp_path}" in result.stderr


def test_the_old_name_of_the_training_seed_works_with_a_warning(study_file):
    old, new = (call("study", study_file, "--plan", "--json", name, "3") for name in ("--seed", "--run-seed"))
    assert old.stderr == "warning: --seed of `moeframe study` is called --run-seed now\n"
    assert new.stderr == ""
    assert json.loads(old.stdout) == json.loads(new.stdout)
    assert {run["seed"] for run in json.loads(new.stdout)["runs"]} == {3}


def test_report_names_the_folder_that_a_dot_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(2, "report", ".").startswith(f"error: cannot read {tmp_path}/results.json: ")
