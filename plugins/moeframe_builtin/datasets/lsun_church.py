"""LSUN church_outdoor: 126,527 photographs of churches from outside, in the two LMDB folders of its authors."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Split
from moeframe_builtin.datasets.formats.decoding import ImageDecoder
from moeframe_builtin.datasets.formats.encoded import EncodedDataset, EncodedExamples
from moeframe_builtin.datasets.formats.lmdb_reader import LmdbReader

FOLDERS: dict[Split, str] = {"train": "church_outdoor_train_lmdb", "test": "church_outdoor_val_lmdb"}
OFFICIAL_IMAGES: dict[Split, int] = {"train": 126_227, "test": 300}
LABEL_NAMES = ("church_outdoor",)


def how_to_get(archives: str, root: Path) -> str:
    """What to do if a folder is missing or damaged, as an imperative clause."""
    return f"fetch {archives} with download.py -c church_outdoor of https://github.com/fyu/lsun and unzip in {root}"


class LsunChurch(EncodedDataset):
    """LSUN's outdoor churches, RGB, cropped to squares, from the official LMDB folders; the test split is their val."""

    class Config(EncodedDataset.Config):
        type: Literal["lsun_church"] = "lsun_church"
        root: Path = Field(description=f"the folder that holds {FOLDERS['train']} and {FOLDERS['test']}")
        size: int = Field(
            default=256, ge=8, le=1024, description="pixels a side that images are cropped and resized to"
        )
        verify: bool = Field(
            default=True, description="refuse folders that do not hold the official 126,227 and 300 images"
        )

    config: Config

    @property
    def decoder(self) -> ImageDecoder:
        """Central square, resized, RGB."""
        return ImageDecoder(self.config.size, 3, other_modes=self.config.other_modes)

    def listed(self) -> dict[Split, EncodedExamples]:
        """The official train images and, as test, the official val ones, in order of their keys."""
        root = self._root
        if not any((root / folder).is_dir() for folder in FOLDERS.values()):
            train, test = FOLDERS.values()
            raise DataError(
                f"lsun_church: {root} holds neither {train} nor {test}; "
                f"{how_to_get(f'{train}.zip and {test}.zip', root)}, or set dataset.root to where they are"
            )
        return {split: self._listed_split(split) for split in FOLDERS}

    def _listed_split(self, split: Split) -> EncodedExamples:
        reader = LmdbReader(self._root / FOLDERS[split], how_to_get(f"{FOLDERS[split]}.zip", self._root))
        names, wanted = reader.names(), OFFICIAL_IMAGES[split]
        if self.config.verify and len(names) != wanted:
            raise DataError(
                f"{reader.path} holds {len(names):,} images, not the official {wanted:,}; "
                f"{how_to_get(f'{FOLDERS[split]}.zip', self._root)}, or set dataset.verify: false if it differs "
                "on purpose"
            )
        return EncodedExamples(reader, names, self.decoder, label_names=LABEL_NAMES)

    def provenance(self) -> dict[str, Any]:
        """Where the photographs come from and how they are split."""
        return {
            "source": "LSUN, category church_outdoor (F. Yu, A. Seff, Y. Zhang, S. Song, T. Funkhouser, J. Xiao: LSUN: "
            "Construction of a large-scale image dataset using deep learning with humans in the loop, 2015, "
            "arXiv:1506.03365), https://www.yf.io/p/lsun; photographs found by image search on the web",
            "licence": "none found for the images; their authors ask that the paper be cited where they are of use in "
            "research; the rights of the photographers are not cleared",
            "split_rule": "the official one: train, and val as test (the official test images have no category)"
            if self.config.verify
            else "the official folders, val as test; the numbers of images were not compared (verify: false)",
            "labels": "none: all zero",
        }

    def source_transformations(self) -> list[str]:
        """What LSUN's authors did to the photographs."""
        return ["by the source: shorter side resized to 256 pixels, lossy compression, stored as WebP"]

    def files(self) -> dict[str, str]:
        """SHA-256 of each data.mdb itself, used and unused images alike."""
        return self._sha256

    @cached_property
    def _sha256(self) -> dict[str, str]:
        hashes = {}
        for folder in FOLDERS.values():
            with (self._root / folder / "data.mdb").open("rb") as file:
                hashes[f"{folder}/data.mdb"] = hashlib.file_digest(file, "sha256").hexdigest()
        return hashes

    @property
    def _root(self) -> Path:
        return self.config.root.expanduser()
