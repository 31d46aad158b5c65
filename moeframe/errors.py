"""Every error that moeframe raises on purpose: the command line prints these without a traceback."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar


class MoeframeError(Exception):
    """An error the user can fix; the message states the value, the location and the fix."""

    exit_status: ClassVar[int] = 1


class InputError(MoeframeError):
    """The user's input is wrong (exit status 2)."""

    exit_status = 2


SpecPath = tuple[str | int, ...]
"""Keys and list positions that lead to a value of a spec."""


@dataclass(frozen=True)
class SpecProblem:
    """One thing that is wrong in a spec or study file."""

    path: SpecPath
    message: str
    about_key: bool = False
    """Whether the key itself is wrong rather than its value."""
    place: str = ""
    """`file:line:column`, or the option of the command line; empty until the document is known."""

    @property
    def dotted_path(self) -> str:
        """The path as users write it, such as `experts.0.channels`."""
        return ".".join(str(part) for part in self.path)

    def below(self, path: SpecPath) -> "SpecProblem":
        """The same problem, seen from a section that encloses it."""
        return replace(self, path=(*path, *self.path))

    def at(self, place: str) -> "SpecProblem":
        """The same problem with its place."""
        return replace(self, place=place)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.dotted_path, self.message) if part)


class SpecError(InputError):
    """A spec is wrong; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[SpecProblem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(InputError):
    """A plugin is broken, missing, or breaks its kind's contract."""


class DataError(InputError):
    """Data is missing, corrupt or does not fit the spec."""


class RunFolderError(InputError):
    """A run folder is missing, belongs to another spec, or is in use."""


class DeviceError(InputError):
    """The requested device does not exist."""


class CheckpointError(MoeframeError):
    """A checkpoint is truncated, altered or of another model."""


class RangeError(MoeframeError):
    """A log-SNR is outside the range on which an expert is valid."""


class NonFiniteError(MoeframeError):
    """A loss, a gradient or a prediction became infinite or NaN; the message names the part."""


class StorageError(MoeframeError):
    """A file could not be written (disk full, no permission)."""


class UnavailableError(MoeframeError):
    """A metric or a dataset needs something that is not installed; the message says how to get it."""
