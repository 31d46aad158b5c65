"""A folder, or a zip archive, of your own image files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Split
from moeframe.randomness import derive_key
from moeframe_builtin.datasets.formats.archive import Reader, open_reader
from moeframe_builtin.datasets.formats.attribute_table import AttributeTable
from moeframe_builtin.datasets.formats.decoding import EXTENSIONS, ImageDecoder
from moeframe_builtin.datasets.formats.encoded import EncodedDataset, EncodedExamples

SPLIT_SEED = 20120807  # fixed: every run holds out the same files, whatever its seed


def is_test(name: str, test_fraction: float) -> bool:
    """Whether a file belongs to the test split: a function of its name alone, so a new file moves no other."""
    return derive_key(SPLIT_SEED, "image_folder split", name) < test_fraction * 2**63


Labels = Literal["outermost", "nested"]


def label_of(name: str, labels: Labels) -> str:
    """The class of a name below the split's folder: its outermost folder, or all of them; empty for a file in none.

    >>> label_of("cat/tabby/1.png", "outermost"), label_of("cat/tabby/1.png", "nested"), label_of("1.png", "nested")
    ('cat', 'cat/tabby', '')
    """
    folder = name.rpartition("/")[0]
    return folder if labels == "nested" else folder.split("/")[0]


class ImageFolder(EncodedDataset):
    """Your own images: a folder (or .zip) with train/ and test/, or one tree that is split by file name.

    Folders below the split's folder are classes: the outermost one names the label, or with `labels: nested` all do.
    """

    class Config(EncodedDataset.Config):
        type: Literal["image_folder"] = "image_folder"
        root: Path = Field(description="a folder, or a .zip of one")
        size: int = Field(ge=1, le=4096, description="pixels a side that images are cropped and resized to")
        channels: Literal[1, 3] = 3
        test_fraction: float = Field(
            default=0.1,
            ge=0.01,
            le=0.9,
            description="share of the files in the test split when there are no train/ and test/ folders",
        )
        labels: Labels = Field(
            default="outermost", description="of cat/tabby/1.png the class is cat, or with nested cat/tabby"
        )
        attributes: Path | None = Field(
            default=None,
            description="CSV file of numbers per image: first column the file's name relative to root, header line",
        )

    config: Config

    @property
    def decoder(self) -> ImageDecoder:
        """Central square, resized."""
        return ImageDecoder(self.config.size, self.config.channels, other_modes=self.config.other_modes)

    def provenance(self) -> dict[str, Any]:
        """Where the folder is and how it is split."""
        c = self.config
        return {
            "source": str(c.root),
            "licence": "not known to moeframe: the user's own files",
            "split_rule": "folders train/ and test/"
            if self._has_split_folders
            else f"a file is test when the hash of its name falls below {c.test_fraction:g}",
            "labels": f"{c.labels} class folder",
            "attributes": "none" if c.attributes is None else f"{c.attributes}: {', '.join(self._attributes.columns)}",
        }

    def source_transformations(self) -> list[str]:
        """Which files are images."""
        return [f"files ending in {' '.join(EXTENSIONS)}; hidden files are skipped"]

    @property
    def ignored_files(self) -> Mapping[str, int]:
        """Number of unused files by extension, and of images outside train/ and test/."""
        found = Counter(
            Path(name).suffix.lower() or "no extension"
            for name in self._all_names
            if Path(name).suffix.lower() not in EXTENSIONS and not self._is_attributes(name)
        )
        if self._has_split_folders:
            used = len(self._below("train/")) + len(self._below("test/"))
            found["images outside train/ and test/"] += len(self._names) - used
        return {kind: n for kind, n in sorted(found.items()) if n}

    def listed(self) -> dict[Split, EncodedExamples]:
        """Both splits. Raises DataError for a folder without images or half a pair of split folders."""
        names: dict[Split, list[str]]
        if self._has_split_folders:
            names = {"train": self._below("train/"), "test": self._below("test/")}
            fix = "put some into {root}/{name}"
        else:
            for name, other in (("train", "test"), ("test", "train")):
                if self._below(f"{name}/"):
                    raise DataError(
                        f"image_folder: {self._root} has {name}/ but no {other}/; add it, or rename {name}/"
                    )
            if not self._names:
                raise DataError(f"image_folder: {self._root} holds no images ({' '.join(EXTENSIONS)}); put some there")
            names = {"train": [], "test": []}
            for name in self._names:
                names["test" if is_test(name, self.config.test_fraction) else "train"].append(name)
            fix = "none of {n} is in it; add images, change dataset.test_fraction, or make train/ and test/ folders"
        for split, part in names.items():
            if not part:
                words = fix.format(root=self._root, name=split, n=len(self._names))
                raise DataError(f"image_folder: no {split} images: {words}")
        return self._examples(names)

    def _examples(self, names: dict[Split, list[str]]) -> dict[Split, EncodedExamples]:
        cut = 1 if self._has_split_folders else 0
        classes = {
            name: label_of(name.split("/", cut)[cut], self.config.labels) for part in names.values() for name in part
        }
        label_names = tuple(sorted(set(classes.values())))  # one numbering for both splits
        if self.config.attributes is not None:
            self._attributes.expect_exactly(list(classes))
        return {
            split: EncodedExamples(
                self._reader,
                part,
                self.decoder,
                torch.tensor([label_names.index(classes[name]) for name in part], dtype=torch.long),
                label_names,
                {} if self.config.attributes is None else self._attributes.of(part),
            )
            for split, part in names.items()
        }

    @property
    def _root(self) -> Path:
        return self.config.root.expanduser()

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self._root, self.name())

    @cached_property
    def _all_names(self) -> Sequence[str]:
        return self._reader.names()

    @cached_property
    def _names(self) -> list[str]:
        return [name for name in self._all_names if Path(name).suffix.lower() in EXTENSIONS]

    def _is_attributes(self, name: str) -> bool:
        table = self.config.attributes
        return table is not None and self._root / name == table.expanduser()

    def _below(self, folder: str) -> list[str]:
        return [name for name in self._names if name.startswith(folder)]

    @property
    def _has_split_folders(self) -> bool:
        if self._root.is_dir():
            return (self._root / "train").is_dir() and (self._root / "test").is_dir()
        return bool(self._below("train/")) and bool(self._below("test/"))

    @cached_property
    def _attributes(self) -> AttributeTable:
        assert self.config.attributes is not None
        return AttributeTable.read(self.config.attributes.expanduser())
