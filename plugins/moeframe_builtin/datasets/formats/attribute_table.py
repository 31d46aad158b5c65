"""Numbers per image from a CSV file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from moeframe.errors import DataError
from moeframe.shapes import PerItem


@dataclass(frozen=True)
class AttributeTable:
    """Numbers per file by the name of their column; the first column is the file's name."""

    path: Path
    columns: tuple[str, ...]
    values: dict[str, list[float]]
    """Row of each file."""
    lines: dict[str, int]
    """Line number of each file's row."""

    @classmethod
    def read(cls, path: Path) -> "AttributeTable":
        """Raises DataError with file and line for anything but a table of numbers."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as cause:
            raise DataError(
                f"{path} cannot be read ({getattr(cause, 'strerror', None) or cause}); dataset.attributes names a CSV "
                "file in UTF-8 with a header line"
            ) from cause
        reader = csv.reader(io.StringIO(text))
        header = next(reader, [])
        columns = tuple(name.strip() for name in header[1:])
        if not columns or "" in columns or len(set(columns)) != len(columns):
            raise DataError(
                f"{path}:1: the header is {','.join(header)!r}; it must name a column of file names and then each "
                "attribute once, for example  file,smiling,glasses"
            )
        values: dict[str, list[float]] = {}
        lines: dict[str, int] = {}
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{place}: has {len(row)} fields, the header has {len(header)}; complete the line")
            if row[0] in values:
                raise DataError(f"{place}: a second line for {row[0]}; keep one of them")
            lines[row[0]] = reader.line_num
            values[row[0]] = [_number(text, place, name) for text, name in zip(row[1:], columns, strict=True)]
        return cls(path, columns, values, lines)

    def expect_exactly(self, names: Sequence[str]) -> None:
        """Raise DataError for a line without an image, and for images without a line."""
        known = set(names)
        for name, line in self.lines.items():
            if name not in known:
                raise DataError(f"{self.path}:{line}: there is no image {name!r}; remove the line or add the image")
        lacking = [name for name in names if name not in self.values]
        if lacking:
            raise DataError(
                f"{self.path} has no line for {len(lacking)} of the {len(names)} images, the first is {lacking[0]!r}; "
                "names are relative to dataset.root, with '/' between folders"
            )

    def of(self, names: Sequence[str]) -> dict[str, PerItem]:
        """Each attribute of these files, float64."""
        table = torch.tensor([self.values[name] for name in names], dtype=torch.float64).reshape(-1, len(self.columns))
        return {column: table[:, i] for i, column in enumerate(self.columns)}


def _number(text: str, place: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{place}: {column} is {text!r}; it must be a number, 1 present, 0 or -1 absent") from None
