"""Processes on this machine."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal

from moeframe.interfaces.launcher import Ended, Launcher, Task

POLL_SECONDS = 0.2
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalLauncher(Launcher):
    """Processes on this machine, which share out its cores: together no more threads than there are cores."""

    class Config(Launcher.Config):
        type: Literal["local"] = "local"

    config: Config

    def run(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Starts `jobs` processes, and another whenever one has ended; all are stopped when the caller stops."""
        cores = len(os.sched_getaffinity(0))
        threads = str(max(1, cores // self.config.jobs))
        environment = {**os.environ, **dict.fromkeys(THREADS, threads)}
        waiting, running = list(tasks), dict[subprocess.Popen[bytes], Task]()
        try:
            while waiting or running:
                while waiting and len(running) < self.config.jobs:
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
            task.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
