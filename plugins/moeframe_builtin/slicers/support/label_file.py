"""Slices that a CSV file lists: the name of each image and its group."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import torch

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import State
from moeframe.shapes import SliceIds
from moeframe_builtin.slicers.support.by_feature import refuse_no_images

SHOWN_GROUPS = 12


def read_groups(path: Path) -> dict[str, str]:
    """Group by image name, of a CSV file in UTF-8 with a header and two columns; empty lines are skipped.

    Raises DataError naming file and line for any other line, or when a line repeats an image.
    """
    rows = _rows(path)
    next(rows, None)  # the header
    groups: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for line, (image, group) in rows:
        if not image or not group:
            raise DataError(f"{path}:{line}: the {'group' if image else 'image name'} is empty; fill it in")
        if image in groups:
            words = f"'{image}' is listed a second time, after line {line_of[image]}; keep one line per image"
            raise DataError(f"{path}:{line}: {words}")
        groups[image], line_of[image] = group, line
    return groups


def _rows(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Line number and the two values of each row, the header included."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if not row:
                continue
            if len(row) != 2:
                words = f"{len(row)} column{'s' * (len(row) != 1)} instead of two, image name and group"
                raise DataError(f"{path}:{reader.line_num}: {words}; quote a value that holds a comma")
            yield reader.line_num, (row[0].strip(), row[1].strip())
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}; fix the quotes") from None


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", error)
        words = f"cannot be read: {reason}; labels is a CSV file of image names and groups"
        raise DataError(f"{str(path)!r}: {words}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not text in UTF-8; save the file as UTF-8") from None


class LabelFile:
    """The groups of a file, sorted by name: group k is slice k. Images are known by `Examples.names`."""

    def __init__(self, path: Path, *, n_slices: int):
        self._path = path
        self._n_slices = n_slices
        self._group_names: list[str] | None = None
        self._slice_of_image: dict[str, int] = {}

    def fit(self, train: Examples) -> None:
        """Read the file. Raises DataError unless it has K groups and a line for every training image."""
        refuse_no_images(train, "semantic")
        groups = read_groups(self._path)
        names = sorted(set(groups.values()))
        if len(names) != self._n_slices:
            shown = [*names[:SHOWN_GROUPS], *(["..."] if len(names) > SHOWN_GROUPS else [])]
            raise DataError(
                f"{self._path}: {len(names)} groups ({', '.join(shown) or 'none'}) for {self._n_slices} slices; "
                "a slice is one group, so make the two numbers equal"
            )
        self._group_names = names
        number = {name: k for k, name in enumerate(names)}
        self._slice_of_image = {image: number[group] for image, group in groups.items()}
        self.assign(train)

    def assign(self, examples: Examples) -> SliceIds:
        """The group of each image. Raises DataError for data without names and for images without a line."""
        assert self._group_names is not None, "fit or restore first"
        if len(examples) == 0:
            return torch.empty(0, dtype=torch.long)
        if not examples.names:
            raise DataError(
                "semantic: labels go by the names of images, and this dataset has none; use image_folder, celeba_hq or "
                "lsun_church, whose images have names, or features instead of labels"
            )
        missing = [name for name in examples.names if name not in self._slice_of_image]
        if missing:
            raise DataError(
                f"{self._path}: no line for {len(missing)} of {len(examples)} images, the first is '{missing[0]}'; "
                "give every image of the dataset a line (the first line of the file is its header)"
            )
        return torch.tensor([self._slice_of_image[name] for name in examples.names])

    @property
    def slice_names(self) -> list[str]:
        """The names of the groups."""
        assert self._group_names is not None, "fit or restore first"
        return list(self._group_names)

    def state(self) -> State:
        """The groups, and the name and the slice of every image that the file lists."""
        assert self._group_names is not None, "fit first"
        return {
            "group_names": list(self._group_names),
            "images": list(self._slice_of_image),
            "slice_of_image": list(self._slice_of_image.values()),
        }

    def restore(self, state: State) -> None:
        """Restore groups and images; the file is not read again."""
        self._group_names = list(state["group_names"])
        self._slice_of_image = dict(zip(state["images"], state["slice_of_image"], strict=True))
