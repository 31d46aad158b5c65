"""CIFAR-10: 60,000 colour photographs, 32x32 pixels, in the python-version batches of its authors."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe.shapes import Levels, SliceIds
from moeframe_builtin.datasets.formats.pickled_batch import Pickled, read_pickled

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SIZE = 32
N_CLASSES = 10

META = "batches.meta"
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
OFFICIAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


@dataclass(frozen=True)
class Contents:
    """Everything read from the folder."""

    splits: dict[Split, InMemoryExamples]
    sha256: dict[str, str]


def images_and_labels(batch: Pickled) -> tuple[Levels, SliceIds]:
    """The images (uint8, channels first as stored) and labels of a batch. Raises DataError naming the file."""
    data, labels = batch.array("data"), batch.integers("labels")
    n_values = 3 * SIZE * SIZE
    if data.ndim != 2 or data.shape[1] != n_values:
        raise DataError(
            f"{batch.path} holds data of shape {tuple(data.shape)}, not (images, {n_values}); unpack {ARCHIVE} again"
        )
    if len(data) != len(labels) or not labels:
        raise DataError(f"{batch.path} holds {len(labels)} labels for {len(data)} images; unpack {ARCHIVE} again")
    if outside := sorted({label for label in labels if not 0 <= label < N_CLASSES}):
        raise DataError(
            f"{batch.path} holds the label {outside[0]}; labels are 0..{N_CLASSES - 1}: unpack {ARCHIVE} again"
        )
    return data.reshape(len(data), 3, SIZE, SIZE), torch.tensor(labels)


class Cifar10(Dataset):
    """CIFAR-10, 32x32 RGB, ten classes of animals and vehicles, from the official python batches."""

    class Config(Dataset.Config):
        type: Literal["cifar10"] = "cifar10"
        root: Path = Field(description=f"the folder that holds {FOLDER}, or that folder itself")
        verify: bool = Field(default=True, description="refuse files that are not the official ones, by MD5")

    config: Config

    @property
    def image(self) -> ImageShape:
        """Three channels of 32x32 pixels, 8 bits."""
        return ImageShape(channels=3, height=SIZE, width=SIZE, levels=256)

    def split(self, name: Split) -> InMemoryExamples:
        """The official train or test images, in the order of the batches."""
        return self._contents.splits[name]

    def card(self) -> dict[str, Any]:
        """Provenance of the images and the hash of each file."""
        return {
            "source": "CIFAR-10, python version (A. Krizhevsky: Learning multiple layers of features from tiny images, "
            "2009), https://www.cs.toronto.edu/~kriz/cifar.html; a labelled part of 80 Million Tiny Images, which was "
            "collected from the web and withdrawn in 2020",
            "licence": "none stated by its authors, who ask that the report above be cited; the rights of the "
            "photographers are not cleared",
            "splits": {name: len(examples) for name, examples in self._contents.splits.items()},
            "split_rule": "the official one: data_batch_1 to 5 are train, test_batch is test"
            if self.config.verify
            else "the official batches; not compared with the official files (verify: false)",
            "levels": 256,
            "labels": "the class, named by batches.meta",
            "transformations": [
                "by the source: photographs from the web resized to 32x32, 8-bit RGB",
                "none by moeframe",
            ],
            "files": self._contents.sha256,
        }

    @cached_property
    def _folder(self) -> Path:
        root = self.config.root.expanduser()
        folder = root / FOLDER if (root / FOLDER).is_dir() else root
        lacking = [name for name in OFFICIAL_MD5 if not (folder / name).is_file()]
        if not lacking:
            return folder
        unpack = f"download {ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it"
        if len(lacking) == len(OFFICIAL_MD5):
            raise DataError(f"cifar10: {root} holds no {FOLDER}; {unpack} there, or set dataset.root to where it is")
        raise DataError(f"cifar10: {folder} lacks {', '.join(lacking)}; {unpack} again, so that they are there")

    @cached_property
    def _contents(self) -> Contents:
        sha256: dict[str, str] = {}
        names = self._read(META, sha256).texts("label_names")
        if len(names) != N_CLASSES:
            raise DataError(
                f"{self._folder / META} names {len(names)} classes, not {N_CLASSES}; unpack {ARCHIVE} again"
            )
        splits: dict[Split, InMemoryExamples] = {}
        for split, files in BATCHES.items():
            parts = [images_and_labels(self._read(file, sha256)) for file in files]
            images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            splits[split] = InMemoryExamples(images, labels, names)
        return Contents(splits, sha256)

    def _read(self, name: str, sha256: dict[str, str]) -> Pickled:
        """Read one file, note its SHA-256 and, by default, refuse unofficial content before unpickling it."""
        path = self._folder / name
        try:
            content = path.read_bytes()
        except OSError as cause:
            raise DataError(f"{path} cannot be read ({cause.strerror}); check its permissions") from cause
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if self.config.verify and md5 != OFFICIAL_MD5[name]:
            raise DataError(
                f"{path} ({len(content)} bytes) is not the official file: MD5 {md5}, not {OFFICIAL_MD5[name]}; "
                f"unpack {ARCHIVE} again, or set dataset.verify: false if it differs on purpose"
            )
        sha256[name] = hashlib.sha256(content).hexdigest()
        return read_pickled(path, content)
