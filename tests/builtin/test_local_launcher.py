"""The launcher of this machine: no more processes than cores, which are shared out among them."""

import os
import sys

import pytest

from moeframe.data.loading import WORKERS_AT_MOST
from moeframe.interfaces.launcher import Launcher, Task
from moeframe.plugin.registry import Registry


def test_the_cores_are_shared_out_among_the_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    launcher = Registry.installed().get(Launcher, "local")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", WORKERS_AT_MOST)
    told = f"import os; print(*(os.environ[name] for name in {names}), os.getcwd())"
    tasks = [Task(str(i), (sys.executable, "-c", told), tmp_path / f"{i}.log", tmp_path) for i in range(2)]
    assert [ended.exit_status for ended in launcher(launcher.Config(jobs=3)).run(tasks)] == [0, 0]
    assert {path.read_text() for path in tmp_path.glob("*.log")} == {f"2 2 2 {tmp_path}\n"}


def test_exclusive_tasks_run_last_one_by_one_with_all_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    launcher = Registry.installed().get(Launcher, "local")
    told = (
        "import os, time; a = time.time_ns(); time.sleep(0.2); print(a, time.time_ns(), os.environ['OMP_NUM_THREADS'])"
    )
    tasks = [Task(f"{i}", (sys.executable, "-c", told), tmp_path / f"{i}.log", exclusive=i < 2) for i in range(4)]
    order = [ended.task.name for ended in launcher(launcher.Config(jobs=2)).run(tasks)]
    assert set(order[:2]) == {"2", "3"}
    times = [[int(word) for word in (tmp_path / f"{name}.log").read_text().split()] for name in order]
    assert [threads for _, _, threads in times] == [2, 2, 4, 4]
    assert max(times[0][1], times[1][1]) < times[2][0] < times[2][1] < times[3][0]


@pytest.mark.slow
def test_no_more_processes_than_cores_are_started(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    launcher = Registry.installed().get(Launcher, "local")
    tasks = [
        Task(str(i), (sys.executable, "-c", "import time; time.sleep(1)"), tmp_path / f"{i}.log") for i in range(4)
    ]
    running = launcher(launcher.Config(jobs=9)).run(tasks)
    next(running)
    assert len(list(tmp_path.iterdir())) <= 3, "two, and one more after the first has ended"
    assert len(list(running)) == 3
