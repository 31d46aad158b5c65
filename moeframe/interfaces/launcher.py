"""Launcher: runs the tasks of a study somewhere, several at a time."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from moeframe.interfaces.component import Component


@dataclass(frozen=True)
class Task:
    """One command, independent of every other task. It writes its result to files; started again, it resumes."""

    name: str
    """Display name, unique among the tasks of one `run` and stable when a study is resumed."""
    command: tuple[str, ...]
    log: Path
    """File of its output. Together with the command it identifies the task among all studies."""
    folder: Path = Path()
    """Working directory of the command; paths in it may be relative to it."""
    exclusive: bool = False
    """Whether it measures times or memory, so that no other task may run on its machine."""


@dataclass(frozen=True)
class Ended:
    """A task that has exited."""

    task: Task
    exit_status: int


class Launcher(Component):
    """Starts tasks and reports each that has exited; a scheduler's launcher submits the same commands to its queue.

    The launcher's own settings decide what a task may use (cores, GPUs, memory, time).
    """

    KIND: ClassVar[str] = "launchers"

    class Config(Component.Config):
        jobs: int = Field(default=1, ge=1, le=1024, description="tasks at a time")

    config: Config

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Yield each task as it exits, in any order. A failure stops no other task; an exclusive task runs alone."""
