"""Full, forbidden and limited disks: the file is named, and the same command resumes."""

import errno
import os
import resource
import subprocess
import sys

import pytest
from command_line import call, refusal


def test_a_folder_that_cannot_be_made_is_named(tiny_spec, tmp_path):
    (tmp_path / "file").touch()
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "file/run")
    assert message == (
        f"error: {tmp_path}/file/run: cannot be written: Not a directory; free some space or choose another folder "
        "with --out; what was saved before is untouched, the same command resumes from it"
    )
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "file")
    assert message.startswith(f"error: {tmp_path}/file: cannot be written: File exists; ")


def test_samples_that_cannot_be_written_are_an_error(finished, tmp_path):
    (tmp_path / "file").touch()
    message = refusal(1, "sample", finished, "-n", "2", "--out", tmp_path / "file/grid.png")
    assert message.startswith(f"error: {tmp_path}/file/grid.png: cannot be written: Not a directory; ")


@pytest.mark.parametrize("writes", [0, 4, 12])
@pytest.mark.slow
def test_after_a_full_disk_the_same_command_resumes(tiny_spec, tmp_path, monkeypatch, original, writes):
    calls = []

    def fsync(descriptor, sync=os.fsync):
        calls.append(descriptor)
        if len(calls) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    out = tmp_path / "run"
    with monkeypatch.context() as full:
        full.setattr("os.fsync", fsync)
        message = refusal(1, "run", tiny_spec, "--out", out)
    assert f"{out}/" in message
    assert "cannot be written: No space left on device; free some space or choose another folder with --out" in message
    assert not list(out.rglob("*.partial"))
    assert call("run", tiny_spec, "--out", out).exit_code == 0
    assert (out / "results.json").read_bytes() == (original / "run/results.json").read_bytes()


@pytest.mark.slow
def test_a_limit_on_file_size_is_an_error_that_names_the_file(tiny_spec, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "moeframe.cli", "run", tiny_spec, "--out", tmp_path / "run"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [message] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: {tmp_path}/run/seed-0/checkpoints/step-00000002: cannot be written: File too")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.partial"))
