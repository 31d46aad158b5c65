"""The three text files that describe CelebA-HQ: attributes, mapping to CelebA, and CelebA's partition."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from moeframe.errors import DataError

N_ATTRIBUTES = 40
MAPPING_HEADER = ["idx", "orig_idx", "orig_file"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
"""By the number of each part in list_eval_partition.txt."""

NUMBERED_FILE = re.compile(r"([0-9]{1,9})\.(?:jpe?g|png)", re.IGNORECASE)


@dataclass(frozen=True)
class AttributeList:
    """The attributes of each face, as CelebAMask-HQ-attribute-anno.txt has them."""

    place: str
    names: tuple[str, ...]
    values: Mapping[int, tuple[int, ...]]
    """1 present, -1 absent, one per name; by CelebA-HQ index."""
    lines: Mapping[int, int]
    """Number of the line of each index."""


@dataclass(frozen=True)
class CelebAMapping:
    """The file of CelebA that each face was made from, as CelebA-HQ-to-CelebA-mapping.txt has it."""

    place: str
    files: Mapping[int, str]
    """Name of CelebA's file, such as 119614.jpg; by CelebA-HQ index."""
    lines: Mapping[int, int]
    """Number of the line of each index."""


@dataclass(frozen=True)
class CelebAPartition:
    """The part that each file of CelebA belongs to, as list_eval_partition.txt has it."""

    place: str
    parts: Mapping[str, Part]
    """By the name of CelebA's file."""


def parse_attributes(text: str, place: str) -> AttributeList:
    """Read a count, 40 names, and lines of a file name and 40 values. Raises DataError with `place` and the line."""
    rows = list(_rows(text))
    if len(rows) < 2:
        raise DataError(f"{place}:{len(rows) + 1}: the file ends here, before its count and names; download it again")
    (count_line, count), (names_line, names) = rows[:2]
    if len(count) != 1 or not re.fullmatch("[0-9]{1,9}", count[0]):
        raise DataError(
            f"{place}:{count_line}: the count of lines is {_shown(count)!r}; it must be a number alone: download "
            "the file again"
        )
    if len(names) != N_ATTRIBUTES or len(set(names)) != N_ATTRIBUTES:
        raise DataError(
            f"{place}:{names_line}: names {len(names)} attributes, {len(set(names))} of them different; "
            f"there must be {N_ATTRIBUTES}: download the file again"
        )
    values: dict[int, tuple[int, ...]] = {}
    lines: dict[int, int] = {}
    for number, fields in rows[2:]:
        _expect_columns(f"{place}:{number}", fields, 1 + N_ATTRIBUTES, f"a file name and {N_ATTRIBUTES} values")
        index = _index_of_file(f"{place}:{number}", fields[0])
        _expect_new(f"{place}:{number}", fields[0], lines.get(index))
        if wrong := [i for i, value in enumerate(fields[1:]) if value not in ("-1", "1")]:
            raise DataError(
                f"{place}:{number}: {names[wrong[0]]} is {fields[1 + wrong[0]]!r}; it must be 1 where present and -1 "
                "where absent: download the file again"
            )
        lines[index] = number
        values[index] = tuple(map(int, fields[1:]))
    if int(count[0]) != len(values):
        raise DataError(
            f"{place}:{count_line}: says {count[0]} lines, but {len(values)} follow, the last on line {rows[-1][0]}; "
            "download the file again"
        )
    return AttributeList(place, tuple(names), values, lines)


def parse_mapping(text: str, place: str) -> CelebAMapping:
    """Read a header and lines of index, CelebA's index and CelebA's file. Raises DataError with `place` and line."""
    rows = _rows(text)
    number, header = next(rows, (1, []))
    if header != MAPPING_HEADER:
        raise DataError(
            f"{place}:{number}: the header is {_shown(header)!r}, not {' '.join(MAPPING_HEADER)!r}; download the "
            "file again"
        )
    files: dict[int, str] = {}
    lines: dict[int, int] = {}
    lines_of_files: dict[str, int] = {}
    for number, fields in rows:
        _expect_columns(f"{place}:{number}", fields, 3, ", ".join(MAPPING_HEADER))
        for name, value in zip(MAPPING_HEADER[:2], fields[:2], strict=True):
            if not re.fullmatch("[0-9]{1,9}", value):
                raise DataError(f"{place}:{number}: {name} is {value!r}; it must be a number: download the file again")
        _index_of_file(f"{place}:{number}", fields[2])
        index = int(fields[0])
        _expect_new(f"{place}:{number}", f"idx {fields[0]}", lines.get(index))
        _expect_new(f"{place}:{number}", fields[2], lines_of_files.get(fields[2]))
        files[index], lines[index], lines_of_files[fields[2]] = fields[2], number, number
    return CelebAMapping(place, files, lines)


def parse_partition(text: str, place: str) -> CelebAPartition:
    """Read lines of a CelebA file and 0, 1 or 2. Raises DataError with `place` and the line."""
    parts: dict[str, Part] = {}
    lines: dict[str, int] = {}
    for number, fields in _rows(text):
        _expect_columns(f"{place}:{number}", fields, 2, "a file name and its part")
        name, part = fields
        _index_of_file(f"{place}:{number}", name)
        _expect_new(f"{place}:{number}", name, lines.get(name))
        if part not in ("0", "1", "2"):
            raise DataError(
                f"{place}:{number}: the part of {name} is {part!r}; it must be 0 (train), 1 (validation) or 2 (test): "
                "download the file again"
            )
        parts[name], lines[name] = PARTS[int(part)], number
    if not parts:
        raise DataError(f"{place}:1: the file is empty; download it again")
    return CelebAPartition(place, parts)


def join(mapping: CelebAMapping, partition: CelebAPartition) -> dict[int, Part]:
    """The part of each CelebA-HQ index. Raises DataError naming the line of a file that the partition does not list."""
    for index, file in mapping.files.items():
        if file not in partition.parts:
            raise DataError(
                f"{mapping.place}:{mapping.lines[index]}: {file} is not among the {len(partition.parts)} files of "
                f"{partition.place}; download both files again, one of them is cut short or of another data set"
            )
    return {index: partition.parts[file] for index, file in mapping.files.items()}


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    for number, line in enumerate(text.splitlines(), start=1):
        if fields := line.split():
            yield number, fields


def _shown(fields: list[str]) -> str:
    line = " ".join(fields)
    return line if len(line) <= 60 else f"{line[:57]}..."


def _expect_columns(place: str, fields: list[str], n: int, what: str) -> None:
    if len(fields) != n:
        raise DataError(f"{place}: must have {n} columns ({what}), not {len(fields)}; download the file again")


def _expect_new(place: str, what: str, earlier_line: int | None) -> None:
    if earlier_line is not None:
        raise DataError(f"{place}: a second line for {what}, the first is line {earlier_line}; download the file again")


def _index_of_file(place: str, name: str) -> int:
    match = NUMBERED_FILE.fullmatch(name)
    if match is None:
        raise DataError(f"{place}: {name!r} is not a numbered image file such as 119614.jpg; download the file again")
    return int(match[1])
