"""A small study that has been run with real processes, and a launcher that starts none."""

import sys

import pytest
from click.testing import CliRunner
from small_study import STUDY

from moeframe import cli
from moeframe.interfaces.launcher import Ended
from moeframe.studies import worker


@pytest.fixture(scope="session")
def done(tmp_path_factory, tiny_text):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(tiny_text)
    path = folder / "little.yaml"
    path.write_text(STUDY)
    arguments = ["study", str(path), "--out", str(folder / "out"), "--jobs", "2"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    return path, folder / "out", result


@pytest.fixture
def in_this_process(monkeypatch):
    """Tasks take turns here: the same work without the start of a process for each."""

    def each_in_turn(self, tasks):
        for task in tasks:
            python, *flags, module, arguments = task.command
            assert (python, flags, module) == (sys.executable, ["-P", "-m"], worker.__name__)
            yield Ended(task, worker.main([arguments]))

    monkeypatch.setattr("moeframe_builtin.launchers.local.LocalLauncher.run", each_in_turn)
