"""Datasets of encoded images: decoded when they are fetched, so that large splits need no memory."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from moeframe.data.duplicates import fingerprints_of, repeated, standing_in
from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import SPLITS, Dataset, Split
from moeframe.shapes import ItemIds, Levels, PerItem
from moeframe_builtin.datasets.formats.archive import Reader
from moeframe_builtin.datasets.formats.decoding import ImageDecoder, OtherModes

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in order, by as many threads as torch uses: one in a worker process of a loader."""
    n_threads = min(torch.get_num_threads(), len(items))
    if n_threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as threads:  # Pillow decodes and resizes without the interpreter's lock
        yield from threads.map(function, items)


class EncodedExamples:
    """A split whose images are read and decoded whenever they are fetched."""

    def __init__(
        self,
        reader: Reader,
        names: Sequence[str],
        decoder: ImageDecoder,
        labels: Tensor | None = None,
        label_names: tuple[str, ...] = ("image",),
        attributes: Mapping[str, PerItem] | None = None,
    ):
        self.reader = reader
        self.names: Sequence[str] = tuple(names)
        self.decoder = decoder
        self.labels = torch.zeros(len(self.names), dtype=torch.long) if labels is None else labels
        self.label_names = label_names
        self.attributes: Mapping[str, PerItem] = attributes or {}

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: ItemIds) -> Levels:
        """The images at `indices`, uint8. Raises DataError naming the first that cannot be decoded."""
        size = self.decoder.size
        images = torch.empty((len(indices), self.decoder.channels, size, size), dtype=torch.uint8)
        for row, image in enumerate(in_threads(self._image, indices.tolist())):
            images[row] = image
        return images

    def subset(self, kept: Tensor) -> "EncodedExamples":
        """The images where `kept`, one bool per image, is true."""
        rows = torch.nonzero(kept).flatten()
        names = [self.names[row] for row in rows.tolist()]
        attributes = {name: values[rows] for name, values in self.attributes.items()}
        return EncodedExamples(self.reader, names, self.decoder, self.labels[rows], self.label_names, attributes)

    def flaws(self) -> list[str | None]:
        """Why each image cannot be decoded, or None; all are decoded."""
        return list(in_threads(self._flaw, range(len(self))))

    def content_sha256(self) -> str:
        """One hash over the name and the content of every file, in order."""
        whole = hashlib.sha256()
        for digest in in_threads(self._digest, self.names):
            whole.update(digest)
        return whole.hexdigest()

    def _image(self, index: int) -> Tensor:
        name = self.names[index]
        return self.decoder(self.reader.read(name), self.reader.place(name))

    def _flaw(self, index: int) -> str | None:
        try:
            self._image(index)
        except DataError as problem:
            return str(problem)
        return None

    def _digest(self, name: str) -> bytes:
        return hashlib.sha256(name.encode() + b"\0" + self.reader.read(name)).digest()


@dataclass(frozen=True)
class Cleaned:
    """The splits that are used, and what was excluded from them."""

    splits: dict[Split, EncodedExamples]
    skipped: list[str]
    """Why each image that cannot be decoded was left out."""
    dropped: dict[str, int]
    """Training images left out as near-duplicates, by what they repeat."""


class EncodedDataset(Dataset):
    """A dataset of encoded 8-bit images; a final class lists them and states their source."""

    class Config(Dataset.Config):
        on_corrupt: Literal["error", "skip"] = Field(
            default="error",
            description="what to do about an image that cannot be decoded; skip decodes all of them first, "
            "and lists what it leaves out in the card",
        )
        other_modes: OtherModes = Field(
            default="error",
            description="what to do about an image that is neither grey nor RGB: with a palette or transparency, or in "
            "CMYK; on_corrupt: skip leaves out those that are an error",
        )
        near_duplicates: Literal["keep", "drop"] = Field(
            default="keep",
            description="drop: leave out training images that nearly equal a test image or an earlier training image; "
            "the test split is never changed",
        )

    config: Config

    @abstractmethod
    def listed(self) -> dict[Split, EncodedExamples]:
        """Both splits as stored, nothing decoded yet. Raises DataError for missing or unsuitable files."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """The card without what this class adds to it: splits, levels, transformations, files, what was left out."""

    @property
    @abstractmethod
    def decoder(self) -> ImageDecoder:
        """How an image is decoded."""

    @property
    def image(self) -> ImageShape:
        """Square images of 8 bits."""
        size = self.decoder.size
        return ImageShape(channels=self.decoder.channels, height=size, width=size, levels=256)

    @property
    def split_rule(self) -> str:
        """The provenance's: the card would read every file for its hash."""
        return str(self.provenance()["split_rule"])

    def split(self, name: Split) -> EncodedExamples:
        """The train or the test images that are used."""
        return self._cleaned.splits[name]

    def missing(self) -> str | None:
        """What is missing or unsuitable; files are listed, not decoded."""
        try:
            self._expect_images(Cleaned(self.listed(), [], {}))
        except DataError as problem:
            return str(problem)
        return None

    def files(self) -> dict[str, str]:
        """What identifies the files, by name: here one hash over all files that are used of each split."""
        return {
            f"{name}: SHA-256 over the names and contents of the {len(examples)} files used": examples.content_sha256()
            for name, examples in self._cleaned.splits.items()
        }

    def card(self) -> dict[str, Any]:
        """Provenance of the images; every file is read once for its hash."""
        cleaned = self._cleaned
        left_out: dict[str, Any] = {
            "images that cannot be decoded": cleaned.skipped
            if self.config.on_corrupt == "skip"
            else "an error (on_corrupt: error)",
            "near-duplicates": cleaned.dropped
            if self.config.near_duplicates == "drop"
            else "kept (near_duplicates: keep)",
            "files ignored": dict(self.ignored_files) or "none",
        }
        return {
            **self.provenance(),
            "splits": {name: len(examples) for name, examples in cleaned.splits.items()},
            "levels": 256,
            "transformations": [*self.source_transformations(), *self.decoder.transformations()],
            "left_out": left_out,
            "files": self.files(),
        }

    def source_transformations(self) -> list[str]:
        """What the source did to the images."""
        return []

    @cached_property
    def _cleaned(self) -> Cleaned:
        splits = self.listed()
        skipped: list[str] = []
        if self.config.on_corrupt == "skip":
            for name in SPLITS:
                flaws = splits[name].flaws()
                skipped += [flaw for flaw in flaws if flaw]
                splits[name] = splits[name].subset(torch.tensor([flaw is None for flaw in flaws], dtype=torch.bool))
        dropped: dict[str, int] = {}
        if self.config.near_duplicates == "drop":
            train, test = (fingerprints_of(splits[name], self.image.levels) for name in SPLITS)
            of_test, of_train = standing_in(train, test) >= 0, repeated(train)
            splits["train"] = splits["train"].subset(~of_test & ~of_train)
            dropped = {
                "training images that nearly equal a test image": int(of_test.sum()),
                "training images that nearly equal an earlier one only": int((of_train & ~of_test).sum()),
            }
        cleaned = Cleaned(splits, skipped, dropped)
        self._expect_images(cleaned)
        return cleaned

    def _expect_images(self, cleaned: Cleaned) -> None:
        for name, examples in cleaned.splits.items():
            if len(examples) == 0:
                raise DataError(
                    f"{self.name()}: no {name} image is left ({len(cleaned.skipped)} cannot be decoded, "
                    f"{sum(cleaned.dropped.values())} dropped); download the data again"
                )
