"""Progress of a run: bars on a terminal, plain lines elsewhere, or nothing."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


@runtime_checkable
class LineStream(Protocol):
    """A text stream for lines, such as sys.stderr."""

    def write(self, text: str, /) -> int:
        """Write text."""

    def flush(self) -> None:
        """Pass on what was written."""


@runtime_checkable
class Watcher(Protocol):
    """Learns what a run is doing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A new stage of `total` units, `done` of them already finished."""

    def advance(self, note: str = "") -> None:
        """One unit is finished; `note` is a figure worth seeing now."""

    def say(self, line: str) -> None:
        """Tell the user something, such as what is about to be trained."""

    def warn(self, text: str) -> None:
        """Warn the user; shown even with --quiet."""


class Silent:
    """Shows nothing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, note: str = "") -> None:
        """Ignore."""

    def say(self, line: str) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""


class WarningsOnly(Silent):
    """Shows warnings, as lines."""

    def __init__(self, stream: LineStream):
        self._stream = stream

    def warn(self, text: str) -> None:
        """Write it."""
        _write(self._stream, f"warning: {text}")


class Lines:
    """Shows one line per stage, and the state of the stage whenever `report` is called."""

    def __init__(self, stream: LineStream, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._stage: str | None = None
        self._total = self._done = self._done_before = 0
        self._begun = 0.0
        self._note = ""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Write the name and the size of the stage."""
        self._total, self._done, self._done_before, self._note = total, done, done, ""
        self._begun = self._clock()
        self._stage = what
        _write(self._stream, f"{what}: {done:,} of {total:,}")

    def advance(self, note: str = "") -> None:
        """Count one unit, and remember the figure."""
        self._done += 1
        self._note = note or self._note

    def say(self, line: str) -> None:
        """Write it."""
        _write(self._stream, line)

    def warn(self, text: str) -> None:
        """Write it."""
        _write(self._stream, f"warning: {text}")

    def report(self) -> None:
        """Write the stage, its step, rate (units per second), time left and newest figure; nothing between stages."""
        if self._stage is None or self._done >= self._total:
            return
        parts = [f"{self._done:,} of {self._total:,}"]
        seconds, units = self._clock() - self._begun, self._done - self._done_before
        if units and seconds > 0:
            rate = units / seconds
            parts += [f"{rate:.3g}/s", f"{duration((self._total - self._done) / rate)} left"]
        _write(self._stream, f"{self._stage}: {', '.join([*parts, *filter(None, [self._note])])}")


def duration(seconds: float) -> str:
    """Return a time to wait in its two largest units.

    >>> duration(7.6), duration(75.0), duration(7_260.0)
    ('8 s', '1 min 15 s', '2 h 1 min')
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


class Bars:
    """Shows one bar per stage: rate, time left, and the newest figure."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Add a bar."""
        self._task = self._progress.add_task(what, total=total, completed=done, note="")

    def advance(self, note: str = "") -> None:
        """Move the current bar."""
        assert self._task is not None
        if note:
            self._progress.update(self._task, note=note)
        self._progress.advance(self._task)

    def say(self, line: str) -> None:
        """Write it above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Write it above the bars."""
        self.say(f"warning: {text}")


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[Watcher]:
    """Progress on standard error: bars on a terminal, lines elsewhere, warnings alone when `quiet`."""
    console = Console(stderr=True)
    if quiet:
        yield WarningsOnly(sys.stderr)
        return
    if not console.is_terminal:
        lines = Lines(sys.stderr)
        with _repeating(lines.report, SECONDS_BETWEEN_LINES):
            yield lines
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


@contextmanager
def _repeating(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call it every so many seconds, by a thread, because one unit of a stage may take hours."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(stream: LineStream, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()
