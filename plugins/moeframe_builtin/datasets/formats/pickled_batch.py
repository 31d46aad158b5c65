"""The pickled batches of CIFAR: arrays of bytes, read without executing what the pickle names."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeframe.errors import DataError
from moeframe.storage.safe_pickle import AllowList, RefusedPickleError, UnreadablePickleError, read_pickle

UINT8 = ("u1", b"u1", "uint8", b"uint8")


class _Rebuilt:
    """What the pickle calls to rebuild an array: the name, its arguments, and the state that it gets afterwards."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, *arguments: Any):
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encoded(text: str, encoding: Any) -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise RefusedPickleError(f"the encoding {encoding!r}")
    return str.encode(text, "latin1")


_REBUILDING: dict[str, Callable[..., Any]] = {
    name: partial(_Rebuilt, name)
    for name in (
        "numpy.core.multiarray._reconstruct",  # numpy 1
        "numpy._core.multiarray._reconstruct",  # numpy 2
        "numpy.ndarray",
        "numpy.dtype",
    )
}
PARTS_OF_AN_ARRAY = AllowList({**_REBUILDING, "_codecs.encode": _encoded})


@dataclass(frozen=True)
class Pickled:
    """The entries of a pickled dict, by name, each read as the type that it must have."""

    path: Path
    entries: dict[str, Any]

    def array(self, key: str) -> Tensor:
        """The array of unsigned bytes under this key. Raises DataError naming the file if it is not one."""
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
            raise self._wrong(f"{key!r} is not a list of strings")
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
        value = read_pickle(io.BytesIO(content), PARTS_OF_AN_ARRAY, encoding="bytes")
    except RefusedPickleError as refused:
        raise DataError(
            f"{path} is refused: its pickle uses {refused}, which no array needs and which could run code; "
            "do not trust its source, and unpack the archive from the official one"
        ) from None
    except UnreadablePickleError as cause:
        raise DataError(f"{path} is truncated or not a pickle ({cause}); unpack the archive again") from cause
    entries = value if isinstance(value, dict) else {}
    return Pickled(path, {_text(key): item for key, item in entries.items() if isinstance(key, str | bytes)})


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...] | None:
    """The sizes of an array, or None when they cannot be."""
    return sizes if all(type(size) is int and size >= 0 for size in sizes) else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
