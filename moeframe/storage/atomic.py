"""Atomic writes (a file is complete or absent), and locks that give a folder to one process."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from moeframe.errors import RunFolderError, StorageError

LOCK = ".lock"


def write_file(path: Path, content: bytes) -> None:
    """Write atomically. Raises StorageError naming the path and the cause; the old file, if any, stays."""
    temporary = path.with_name(f".{path.name}.partial")
    with storage_errors_at(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_and_flush(temporary, content)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_and_flush(path: Path, content: bytes) -> None:
    """Write and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def as_json(value: object) -> bytes:
    """Encode as indented JSON. Raises ValueError for NaN and infinities, which JSON does not have."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def key_of(*parts: object) -> str:
    """A name for what is made of these settings: 16 hexadecimal digits, equal for equal JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def storage_errors_at(path: Path) -> Iterator[None]:
    """Turn OSError into StorageError with a way out."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; free some space or choose another folder "
            "with --out; what was saved before is untouched, the same command resumes from it"
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, created if need be, for one process; wait while another process has it."""
    with _lock_of(folder):
        yield


@contextmanager
def try_locked(folder: Path) -> Iterator[None]:
    """Lock a folder, created if need be, for one process. The lock goes with the process, however it ends.

    Raises RunFolderError while another process has it.
    """
    with _lock_of(folder, timeout=0.0):
        yield


def _lock_of(folder: Path, timeout: float = -1.0) -> AbstractContextManager[object]:
    """The lock, taken; it is released at the end of its `with` block. A negative timeout waits for ever."""
    with storage_errors_at(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(folder / LOCK).acquire(timeout=timeout)
        except Timeout:
            raise RunFolderError(
                f"{folder}: another moeframe process works in this folder; wait for it or choose --out"
            ) from None
