"""Checkpoints that flax wrote with msgpack, read as plain trees of tensors; flax itself is not needed.

An array is msgpack's extension 1, a scalar of numpy its extension 3: each (shape, name of the number type, bytes in C
order), packed once more. Arrays above a gigabyte are dicts of flat chunks.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moeframe.errors import CheckpointError, UnavailableError

ARRAY, NUMPY_SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
NUMBER_TYPES = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)


class _UnreadableError(Exception):
    """The file holds something that flax never writes."""


def read_flax(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of the tree under `key`, by their path joined with '/'. Raises CheckpointError naming the file."""
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read ({cause.strerror}); set path to a checkpoint of flax") from cause
    try:
        tree = _msgpack().unpackb(content, ext_hook=_extension, raw=False, strict_map_key=False)
    except UnavailableError:
        raise
    except _UnreadableError as unreadable:
        raise CheckpointError(f"{path} is refused: it holds {unreadable}; download it again") from None
    except Exception as cause:  # msgpack raises several kinds on corrupt bytes, not all of them its own
        raise CheckpointError(
            f"{path} is truncated or no checkpoint of flax ({type(cause).__name__}: {cause}); download it again"
        ) from cause
    if not isinstance(tree, dict) or not isinstance(tree.get(key), dict):
        found = ", ".join(sorted(map(str, tree))[:8]) if isinstance(tree, dict) else type(tree).__name__
        raise CheckpointError(f"{path} holds no tree of tensors under {key!r}, only: {found}")
    try:
        return dict(_leaves(tree[key], ""))
    except _UnreadableError as unreadable:
        raise CheckpointError(f"{path} is refused: it holds {unreadable}; download it again") from None


def _msgpack() -> Any:
    """The package, which only this family needs."""
    try:
        import msgpack  # type: ignore[import-untyped]
    except ImportError:
        raise UnavailableError("reading flax needs msgpack; pip install 'moeframe[pretrained]'") from None
    return msgpack


def _extension(code: int, packed: bytes) -> Tensor:
    if code not in (ARRAY, NUMPY_SCALAR):
        raise _UnreadableError(f"msgpack's extension {code}, which is not an array")
    shape, name, values = _msgpack().unpackb(packed, raw=True)
    number_type = name.decode("ascii", "backslashreplace")
    if number_type == "bfloat16":
        # the upper half of a float32
        wide = np.frombuffer(values, "<u2").astype("<u4") << 16
        return torch.from_numpy(wide.view("<f4").reshape(shape))
    if number_type not in NUMBER_TYPES:
        raise _UnreadableError(f"an array of {number_type}")
    # a copy: torch wants memory that it may write to
    return torch.from_numpy(np.frombuffer(values, number_type).reshape(shape).copy())


def _leaves(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, branch in tree.items():
        path = f"{prefix}{name}"
        if isinstance(branch, dict) and CHUNKED in branch:
            yield path, _joined(branch, path)
        elif isinstance(branch, dict):
            yield from _leaves(branch, f"{path}/")
        elif isinstance(branch, Tensor):
            yield path, branch
        else:
            raise _UnreadableError(f"{path}, which is not a tensor but a {type(branch).__name__}")


def _joined(branch: Mapping[str, Any], path: str) -> Tensor:
    """The array of a dict of flat chunks; lists are dicts by number."""
    match branch:
        case {"shape": dict() as sizes, "chunks": dict() as chunks}:
            shape = [size for i in range(len(sizes)) if type(size := sizes.get(str(i))) is int and size >= 0]
            pieces = [piece for i in range(len(chunks)) if isinstance(piece := chunks.get(str(i)), Tensor)]
            whole = len(shape) == len(sizes) and len(pieces) == len(chunks) > 0
            if whole and sum(piece.numel() for piece in pieces) == math.prod(shape):
                return torch.cat([piece.flatten() for piece in pieces]).reshape(shape)
    raise _UnreadableError(f"{path}, whose chunks do not form an array")
