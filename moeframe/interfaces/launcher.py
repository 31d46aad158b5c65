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
    """One command, independent of every other task: it leaves its result in files, and begun again it resumes."""

    name: str
    """What a person calls it: unique among those of one `run`, and the same when a study goes on."""
    command: tuple[str, ...]
    log: Path
    """Where its output goes. With the command it tells the tasks of all studies apart."""
    folder: Path = Path()
    """Where the command is begun: paths in it may be relative to it."""
    exclusive: bool = False
    """It measures times and memory: no other task may run on its machine."""


@dataclass(frozen=True)
class Ended:
    """A task that is over."""

    task: Task
    exit_status: int


class Launcher(Component):
    """Starts tasks and tells of each that has ended; a scheduler's launcher submits the same commands to its queue.

    What a task may use (cores, GPUs, memory, time) is a matter of the launcher's own settings.
    """

    KIND: ClassVar[str] = "launchers"

    class Config(Component.Config):
        jobs: int = Field(default=1, ge=1, le=1024, description="tasks at a time")

    config: Config

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Each task as it ends, in any order. One that fails stops no other; an exclusive one has its machine alone."""
