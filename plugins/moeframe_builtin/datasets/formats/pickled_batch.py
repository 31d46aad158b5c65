"""The pickled batches of CIFAR, read as data: nothing that a pickle names is imported or called.

A pickle is a program. Here every name it may refer to (those that an array of numpy is rebuilt with) gives an inert
stand-in that records its arguments; any other name ends the reading.
"""

import io
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeframe.errors import DataError

NAMES_OF_AN_ARRAY = frozenset(
    {
        "numpy.core.multiarray._reconstruct",  # numpy 1
        "numpy._core.multiarray._reconstruct",  # numpy 2
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",  # how Python 3 writes bytes in the old protocols
    }
)
UINT8 = ("u1", b"u1", "uint8", b"uint8")


class _RefusedNameError(Exception):
    """The pickle names something that is not part of an array."""


class _Rebuilt:
    """What calling a stand-in gives: the name, its arguments, and the state that the pickle gives it afterwards."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]):
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StandIn:
    """Takes the place of a function or a class that the pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if self.name != "_codecs.encode":
            return _Rebuilt(self.name, arguments)
        text, encoding = arguments
        if encoding not in ("latin1", b"latin1"):
            raise _RefusedNameError(f"the encoding {encoding!r}")
        return str.encode(text, "latin1")

    def __setstate__(self, state: Any) -> None:
        raise _RefusedNameError(f"a change of {self.name}")


class _ArrayUnpickler(pickle.Unpickler):
    """Plain containers and stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in NAMES_OF_AN_ARRAY:
            raise _RefusedNameError(full_name)
        return _StandIn(full_name)


@dataclass(frozen=True)
class Pickled:
    """The entries of a pickled dict, by name, each asked for by the type that it must have."""

    path: Path
    entries: dict[str, Any]

    def array(self, key: str) -> Tensor:
        """The array of unsigned bytes under this key. Raises DataError naming the file when it is none."""
        match self._entry(key):
            case _Rebuilt(
                state=(_, tuple() as sizes, _Rebuilt(arguments=(element, *_)), fortran_order, bytes() as raw)
            ):
                shape, is_bytes = _shape(sizes), element in UINT8
            case _:
                shape, is_bytes = None, False
        if shape is None or not is_bytes:
            raise self._wrong(f"{key!r} is not an array of unsigned bytes")
        expected = math.prod(shape)
        if len(raw) != expected:
            raise self._wrong(f"{key!r} holds {len(raw)} bytes, not the {expected} of its shape {shape}")
        # bytearray: torch wants memory that it may write to
        flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        if fortran_order:
            return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1])
        return flat.reshape(shape)

    def integers(self, key: str) -> list[int]:
        """The list of integers under this key."""
        value = self._entry(key)
        if not isinstance(value, list) or not all(type(item) is int and abs(item) < 2**31 for item in value):
            raise self._wrong(f"{key!r} is not a list of integers")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under this key."""
        value = self._entry(key)
        if not isinstance(value, list) or not all(isinstance(item, str | bytes) for item in value):
            raise self._wrong(f"{key!r} is not a list of texts")
        return tuple(_text(item) for item in value)

    def _entry(self, key: str) -> Any:
        if key not in self.entries:
            raise self._wrong(f"it has no {key!r}")
        return self.entries[key]

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path} is not a file of CIFAR-10's python version: {what}; unpack the archive again")


def read_pickled(path: Path, content: bytes) -> Pickled:
    """The dict pickled in `content`, which was read from `path`. Raises DataError naming the file; executes nothing."""
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedNameError as refused:
        raise DataError(
            f"{path} is refused: its pickle asks for {refused}, which no array needs and which could run code; "
            "do not trust its source, and unpack the archive from the official one"
        ) from None
    except Exception as cause:  # the pickle machine raises nearly anything on corrupt bytes
        raise DataError(
            f"{path} is truncated or no pickle ({type(cause).__name__}: {cause}); unpack the archive again"
        ) from cause
    entries = value if isinstance(value, dict) else {}
    return Pickled(path, {_text(key): item for key, item in entries.items() if isinstance(key, str | bytes)})


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...] | None:
    """The sizes of an array, or None when they cannot be."""
    return sizes if all(type(size) is int and size >= 0 for size in sizes) else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
