"""Processes on this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal

from moeframe.data.loading import WORKERS_AT_MOST
from moeframe.interfaces.launcher import Ended, Launcher, Task

POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalLauncher(Launcher):
    """Processes on this machine, which share its cores: no more threads than cores, nor processes that decode."""

    class Config(Launcher.Config):
        type: Literal["local"] = "local"

    config: Config

    def run(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Starts `jobs` processes, no more than there are cores, and another whenever one has ended.

        Exclusive tasks come last, one by one, with all cores. All are stopped when the caller stops, and on Linux when
        it is killed.
        """
        cores = len(os.sched_getaffinity(0))
        yield from _run([task for task in tasks if not task.exclusive], min(self.config.jobs, cores), cores)
        yield from _run([task for task in tasks if task.exclusive], 1, cores)


def _run(tasks: Sequence[Task], jobs: int, cores: int) -> Iterator[Ended]:
    threads = str(cores // jobs)
    environment = {**os.environ, **dict.fromkeys(THREADS, threads)}
    if jobs > 1:
        environment[WORKERS_AT_MOST] = threads
    waiting, running = list(tasks), dict[subprocess.Popen[bytes], Task]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                running[_started(task, environment)] = task
            ended = [process for process in running if process.poll() is not None]
            for process in ended:
                yield Ended(running.pop(process), process.returncode)
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _started(task: Task, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  # the command is the study's own
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=task.folder,
            preexec_fn=_ending_with_parent,  # one system call; takes no lock
        )


def _ending_with_parent() -> None:
    """Ask Linux to end this process when its parent has ended, whatever the cause."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
