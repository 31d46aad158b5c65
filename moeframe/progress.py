"""Progress on the terminal; nothing at all where there is none."""

import sys
from collections.abc import Iterator
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


@runtime_checkable
class Watcher(Protocol):
    """Is told what a run is doing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A new stage of `total` units, `done` of them already finished."""

    def advance(self, note: str = "") -> None:
        """One unit more; `note` is a figure worth seeing now."""

    def warn(self, text: str) -> None:
        """Something that whoever started the run should know."""


class Silent:
    """Watches nothing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, note: str = "") -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""


class Lines(Silent):
    """Warnings alone, as lines on standard error."""

    def warn(self, text: str) -> None:
        """Write it."""
        sys.stderr.write(f"warning: {text}\n")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


class Bars:
    """One bar per stage: rate, time left, and the latest figure."""

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

    def warn(self, text: str) -> None:
        """Write it above the bars."""
        self._progress.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watching() -> Iterator[Watcher]:
    """Bars on standard error when it is a terminal, warnings alone otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
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
