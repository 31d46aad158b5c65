"""A folder is one process's at a time, and its lock goes with the process, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from moeframe.errors import RunFolderError, StorageError
from moeframe.storage.atomic import locked, try_locked

HOLDER = """
import sys, time
from pathlib import Path
from moeframe.storage.atomic import try_locked
with try_locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def held_by_another(tmp_path):
    """Starts processes that hold tmp_path for some seconds; returns once it is held."""
    started = []

    def start(seconds):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_that_another_process_holds_is_refused(tmp_path, held_by_another):
    held_by_another(60)
    with pytest.raises(RunFolderError) as caught, try_locked(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: another moeframe process works in this folder; wait for it or choose --out"
    )


def test_the_lock_of_a_killed_process_is_free(tmp_path, held_by_another):
    process = held_by_another(60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with try_locked(tmp_path):
        pass


def test_locked_waits_for_the_other_process(tmp_path, held_by_another):
    held_by_another(1.0)
    start = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - start > 0.5


def test_a_lock_is_free_after_an_error_and_makes_the_folder(tmp_path):
    folder = tmp_path / "new" / "folder"
    with pytest.raises(KeyError), try_locked(folder):
        raise KeyError
    with try_locked(folder):
        assert folder.is_dir()


def test_two_locks_within_one_process_exclude_each_other(tmp_path):
    with try_locked(tmp_path), pytest.raises(RunFolderError), try_locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/run: cannot be written: "), try_locked(tmp_path / "file" / "run"):
        pass
