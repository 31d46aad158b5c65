"""Mutation tests with historic mistakes: each is made in a copy of the repository, and a test must fail.

    python benchmarks/mutations.py          # some five minutes; writes results/evaluation/mutations.json
    python benchmarks/mutations.py -j 2     # two at a time
    python benchmarks/mutations.py -k clip  # those whose name holds the word; writes nothing

A mistake is caught when a test fails. One that keeps pytest from running the test does not count, nor does one that
raises a Python error such as NameError: any use would show it, so it proves nothing about the tests.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from mistakes import likelihood, measurement, merging, model
from mistakes.mutation import Mutation

from moeframe.runs.environment import describe_environment

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/evaluation/mutations.json"
MUTATIONS: tuple[Mutation, ...] = (*likelihood.MISTAKES, *model.MISTAKES, *measurement.MISTAKES, *merging.MISTAKES)

_TIMEOUT = 300
_NO_MISTAKE = ("NameError", "AttributeError", "TypeError", "ImportError", "ModuleNotFoundError", "SyntaxError")


@dataclass(frozen=True)
class Run:
    """What pytest said: its exit status, the first test that failed with its message, and its output."""

    status: int
    failed: str | None
    message: str
    output: str


@dataclass(frozen=True)
class Verdict:
    """What became of a mistake: killed, survived, or why neither can be said."""

    outcome: str
    run: Run
    seconds: float


class Copy:
    """The repository's files in a folder of their own, imported from there instead of the installed ones."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():  # a file may be deleted and not yet committed
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.environment = os.environ | {
            "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'plugins'}",
            "PYTHONDONTWRITEBYTECODE": "1",  # bytecode of a mistake would outlive it
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def require_import(self) -> None:
        """Python in this folder imports this folder's code."""
        script = "import moeframe, moeframe_builtin; print(moeframe.__file__, moeframe_builtin.__file__)"
        found = self._call(["-c", script]).stdout.split()
        print("imported:", *found)
        assert len(found) == 2, "the copy cannot be imported"
        assert all(Path(path).is_relative_to(self.folder) for path in found), "another copy is imported"

    @contextmanager
    def planted(self, mutation: Mutation) -> Iterator[None]:
        """Within the block the mistake is there."""
        path = self.folder / mutation.file
        sound = path.read_text()
        assert sound.count(mutation.old) == 1, f"{mutation.name}: {mutation.old!r} is not once in {mutation.file}"
        path.write_text(sound.replace(mutation.old, mutation.new))
        try:
            yield
        finally:
            path.write_text(sound)

    def test(self, tests: Sequence[str], timeout: int) -> Run:
        """Run these tests up to the first that fails."""
        try:
            done = self._call(["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *tests], timeout)
        except subprocess.TimeoutExpired:
            return Run(124, None, "", f"no answer after {timeout} s")
        found = re.search(r"^FAILED (.+?)(?: - (.*))?$", done.stdout, re.MULTILINE)
        failed, message = (found[1], found[2] or "") if found else (None, "")
        return Run(done.returncode, failed, message, done.stdout + done.stderr)

    def _call(self, arguments: list[str], timeout: int | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout,
        )


def judge(run: Run) -> str:
    """Killed, survived, or why neither."""
    if run.status == 0:
        return "survived"
    if run.status != 1 or run.failed is None:
        return f"no test ran to its end: {' '.join(run.output.split()[-12:])}"
    error = run.message.partition(":")[0].rpartition(".")[2]
    return f"stops with {error}, which shows in any use" if error in _NO_MISTAKE else "killed"


def attempt(mutation: Mutation, copies: "SimpleQueue[Copy]") -> Verdict:
    """Plant one mistake in a copy that is free, and run its tests there."""
    copy, start = copies.get(), time.perf_counter()
    try:
        with copy.planted(mutation):
            run = copy.test(mutation.tests, _TIMEOUT)
    finally:
        copies.put(copy)
    return Verdict(judge(run), run, round(time.perf_counter() - start, 1))


def require_sound(copy: Copy, mutations: Sequence[Mutation]) -> float:
    """All tests of these mistakes pass without them; how long they take."""
    start = time.perf_counter()
    run = copy.test(list(dict.fromkeys(test for mutation in mutations for test in mutation.tests)), 10 * _TIMEOUT)
    assert run.status == 0, f"without any mistake the tests fail already:\n{run.output[-3000:]}"
    print("without mistakes:", run.output.strip().splitlines()[-1], flush=True)
    return round(time.perf_counter() - start, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-j", type=int, default=1, help="mistakes at a time")
    parser.add_argument("-k", default="", help="only mistakes whose name holds this; others stay as they were")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.k in mutation.name]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.j) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()
        made = [Copy(Path(scratch).resolve() / str(i)) for i in range(arguments.j)]
        for copy in made:
            copy.require_import()
            copies.put(copy)
        seconds_without = require_sound(made[0], chosen)
        before = json.loads(OUT.read_text()) if OUT.exists() else {"mistakes": {}, "seconds_without_mistakes": None}
        rows = {}
        for mutation, verdict in zip(chosen, pool.map(lambda one: attempt(one, copies), chosen), strict=True):
            rows[mutation.name] = {
                "effect": mutation.effect,
                "file": mutation.file,
                "outcome": verdict.outcome,
                "killed_by": verdict.run.failed,
                "message": verdict.run.message,
                "seconds": verdict.seconds,
            }
            who = (
                (verdict.run.failed or "").rpartition("::")[2]
                if verdict.outcome == "killed"
                else verdict.outcome.upper()
            )
            print(
                f"{mutation.name:66} {mutation.file.rpartition('/')[2]:20} {verdict.seconds:5.1f} s  {who}", flush=True
            )
    killed = sum(row["outcome"] == "killed" for row in rows.values())
    print(f"{killed} of {len(rows)} killed")
    known = before["mistakes"] | rows
    kept = {mutation.name: known[mutation.name] for mutation in MUTATIONS if mutation.name in known}
    document = {
        "command": "python benchmarks/mutations.py",
        "environment": describe_environment("cpu"),
        "killed": sum(row["outcome"] == "killed" for row in kept.values()),
        "of": len(kept),
        "seconds_without_mistakes": before["seconds_without_mistakes"] if arguments.k else seconds_without,
        "mistakes": kept,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sys.exit(killed != len(rows))


if __name__ == "__main__":
    main()
