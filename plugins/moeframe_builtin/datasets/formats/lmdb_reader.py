"""Encoded images in an LMDB folder: read and never written, from threads, forked and spawned processes."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from moeframe.errors import DataError

DATA_FILE = "data.mdb"


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """An open LMDB file; it belongs to the process that opened it."""

    environment: Any
    """An `lmdb.Environment`; lmdb is imported when a file is opened."""
    n_bytes: int
    """Length that the file must have: reading beyond its end would kill the process (SIGBUS)."""
    process: int


# LMDB allows one opening of a file per process, so the readers of a process share it, by the file's device and inode.
_opened: WeakValueDictionary[tuple[int, int], OpenedFile] = WeakValueDictionary()
_opening = threading.Lock()


class LmdbReader:
    """The values of an LMDB folder by their keys, which are ASCII; neither data.mdb nor its folder is written to.

    `fix` says in an imperative clause how to get the folder; messages end with it. A file that is cut short or no
    LMDB file is refused. One of the right length that was damaged inside is not checked: it has no checksums.
    """

    def __init__(self, folder: Path, fix: str):
        self.path = folder / DATA_FILE
        self._fix = fix
        self._file: OpenedFile | None = None

    def names(self) -> list[str]:
        """All keys in LMDB's order, which is that of their bytes. Raises DataError for one that is not ASCII."""
        import lmdb

        try:
            with self._environment().begin() as transaction:
                keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        except lmdb.Error as cause:
            raise self._unsound(cause) from cause
        for key in keys:
            if not key.isascii():
                raise DataError(
                    f"{self.path} holds the key {key!r}, which is not ASCII; download it again: {self._fix}"
                )
        return [key.decode("ascii") for key in keys]

    def read(self, name: str) -> bytes:
        """The value of one key. Raises DataError naming file and key where it is missing or the file is damaged."""
        import lmdb

        try:
            with self._environment().begin() as transaction:  # one per call: transactions must not be shared by threads
                content = transaction.get(name.encode())
        except lmdb.Error as cause:
            raise DataError(
                f"image {self.place(name)} cannot be read ({cause}); download the file again: {self._fix}"
            ) from cause
        if content is None:
            raise DataError(f"image {self.place(name)} is missing: no such key; download the file again: {self._fix}")
        return bytes(content)

    def place(self, name: str) -> str:
        """The path of data.mdb, and the key inside it."""
        return f"{self.path}:{name}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}

    def _environment(self) -> Any:
        if self._file is None or self._file.process != os.getpid():
            self._file = self._open()
        return self._file.environment

    def _open(self) -> OpenedFile:
        import lmdb

        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{self.path} does not exist; {self._fix}") from None
        except OSError as cause:
            raise DataError(f"{self.path} cannot be read ({cause.strerror}); check it and its permissions") from cause
        place, size = (status.st_dev, status.st_ino), status.st_size
        with _opening:
            opened = _opened.get(place)
            if opened is not None and opened.process != os.getpid():
                opened.environment.close()  # inherited through a fork; LMDB wants a child to open its own
                opened = None
            if opened is None:
                try:
                    opened = open_unwritten(self.path)
                except lmdb.Error as cause:
                    raise self._unsound(cause) from cause
            if size < opened.n_bytes:
                raise DataError(
                    f"{self.path} is cut short: {size:,} bytes of {opened.n_bytes:,}; download it again: {self._fix}"
                )
            _opened[place] = opened
        return opened

    def _unsound(self, cause: Exception) -> DataError:
        import lmdb

        version = ".".join(map(str, lmdb.version()))
        size = self.path.stat().st_size
        return DataError(
            f"{self.path} ({size:,} bytes) is a corrupt LMDB file (LMDB {version}: {cause}); download it again: "
            f"{self._fix}"
        )


def open_unwritten(path: Path) -> OpenedFile:
    """Open data.mdb so that LMDB creates and changes no file, locks included. Raises lmdb.Error.

    Of the file no more than its meta pages is read here, which say how long it must be.
    """
    import lmdb

    environment = lmdb.open(
        str(path.parent),
        subdir=True,
        readonly=True,
        create=False,
        lock=False,  # read only; the lock file would be written to
        readahead=False,  # images are read in random order
        meminit=False,
    )
    n_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    return OpenedFile(environment, n_bytes, os.getpid())
