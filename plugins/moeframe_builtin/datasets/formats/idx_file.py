"""The idx format of MNIST and its descendants: a magic number, the dimensions, then the values; gzipped or not."""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moeframe.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08  # the format's code for its element type


@dataclass(frozen=True)
class IdxFile:
    """The values of one file as uint8, and the SHA-256 of the file and of what it holds once unzipped."""

    path: Path
    values: Tensor
    sha256: str
    sha256_unzipped: str


def read_idx(path: Path, n_dims: int) -> IdxFile:
    """Read a file of unsigned bytes in `n_dims` dimensions. Raises DataError naming the file and what is wrong."""
    try:
        stored = path.read_bytes()
    except OSError as cause:
        raise DataError(f"{path} cannot be read ({cause.strerror}); check its permissions") from cause
    content = _unzipped(path, stored)
    start = 4 + 4 * n_dims
    if len(content) < start:
        raise DataError(f"{path} is truncated: {len(content)} bytes, its header alone takes {start}; download it again")
    if content[:4] != bytes((0, 0, UNSIGNED_BYTE, n_dims)):
        raise DataError(
            f"{path} is not an idx file of unsigned bytes in {n_dims} dimensions: it begins with {content[:4].hex()}, "
            f"not 0000{UNSIGNED_BYTE:02x}{n_dims:02x}; download it again"
        )
    sizes = struct.unpack(f">{n_dims}I", content[4:start])
    expected, found = math.prod(sizes), len(content) - start
    if found != expected:
        what = "is truncated" if found < expected else "is too long"
        shape = " x ".join(map(str, sizes))
        raise DataError(
            f"{path} {what}: {found} values after the header, {shape} = {expected} announced; download it again"
        )
    # bytearray: torch wants memory that it may write to; frombuffer refuses an empty one
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(sizes)
    return IdxFile(path, values, _sha256(stored), _sha256(content))


def _unzipped(path: Path, stored: bytes) -> bytes:
    # by its first bytes: some browsers unzip what they download and leave the name as it was
    if not stored.startswith(GZIP_MAGIC):
        return stored
    try:
        return gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as cause:
        raise DataError(f"{path} cannot be unzipped ({cause}); download it again") from cause


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
