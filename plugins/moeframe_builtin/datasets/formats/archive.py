"""Sources of encoded images: a folder or a zip archive, safe to read from threads, forked and spawned processes."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from moeframe.errors import DataError


@runtime_checkable
class Reader(Protocol):
    """Files by name; a name has `/` between folders."""

    def names(self) -> Sequence[str]:
        """All files, sorted by name."""
        ...

    def read(self, name: str) -> bytes:
        """The content of one file. Raises DataError naming the place."""
        ...

    def place(self, name: str) -> str:
        """Place of a file, for messages."""
        ...


class FolderReader:
    """The files below a folder; hidden files and folders are skipped."""

    def __init__(self, root: Path):
        self._root = root

    def names(self) -> list[str]:
        """All files, sorted by name."""
        found = []
        for folder, _, names in os.walk(self._root, followlinks=True):
            below = Path(folder).relative_to(self._root).as_posix()
            found += [name if below == "." else f"{below}/{name}" for name in names]
        return sorted(name for name in found if "/." not in f"/{name}")

    def read(self, name: str) -> bytes:
        """The content of one file."""
        try:
            return (self._root / name).read_bytes()
        except OSError as cause:
            raise DataError(
                f"image {self.place(name)} cannot be read ({cause.strerror}); check the file and its permissions"
            ) from cause

    def place(self, name: str) -> str:
        """Its path."""
        return str(self._root / name)


class ZipReader:
    """The files of a zip archive, read without unpacking it."""

    def __init__(self, path: Path):
        self._path = path
        self._opened: dict[int, zipfile.ZipFile] = {}

    def names(self) -> list[str]:
        """All files, sorted by name; hidden ones and macOS' __MACOSX are skipped."""
        found = (entry.filename for entry in self._archive().infolist() if not entry.is_dir())
        return sorted(name for name in found if "/." not in f"/{name}" and not name.startswith("__MACOSX/"))

    def read(self, name: str) -> bytes:
        """The content of one file, checked against its CRC."""
        try:
            return self._archive().read(name)
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as cause:
            raise DataError(f"image {self.place(name)} cannot be read ({cause}); download the archive again") from cause

    def place(self, name: str) -> str:
        """The path of the archive, and the name inside it."""
        return f"{self._path}:{name}"

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_opened": {}}

    def _archive(self) -> zipfile.ZipFile:
        # One handle per process, because forked processes share its position; zipfile itself guards it among threads.
        process = os.getpid()
        if process not in self._opened:
            try:
                self._opened = {process: zipfile.ZipFile(self._path)}
            except (OSError, zipfile.BadZipFile) as cause:
                raise DataError(f"{self._path} is a corrupt zip archive ({cause}); download it again") from cause
        return self._opened[process]


def open_reader(root: Path, dataset: str) -> Reader:
    """A reader of a folder or of a zip archive. Raises DataError when `root` is neither."""
    if root.is_dir():
        return FolderReader(root)
    if root.is_file() and root.suffix.lower() == ".zip":
        return ZipReader(root)
    what = "is neither a folder nor a .zip" if root.exists() else "does not exist"
    raise DataError(f"{dataset}: root {root} {what}; put the images there or set dataset.root")
