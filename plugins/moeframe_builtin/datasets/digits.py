"""Handwritten digits: the 1,797 images of 8x8 pixels that come with scikit-learn."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe.randomness import Streams

SOURCE = Path("data") / "digits.csv.gz"
"""The file inside scikit-learn's datasets."""
SPLIT_SEED = 20120807  # fixed: every run holds out the same images, whatever its seed


class Digits(Dataset):
    """Handwritten digits, 8x8 grey, 17 levels (scikit-learn's copy of the UCI test set)."""

    class Config(Dataset.Config):
        type: Literal["digits"] = "digits"
        test_fraction: float = Field(default=0.25, ge=0.01, le=0.9)

    config: Config

    @property
    def image(self) -> ImageShape:
        """One channel of 8x8 pixels, levels 0..16."""
        return ImageShape(channels=1, height=8, width=8, levels=17)

    def split(self, name: Split) -> InMemoryExamples:
        """The train or the test digits, in the order of the fixed permutation."""
        return self._splits[name]

    def card(self) -> dict[str, Any]:
        """Provenance of the digits."""
        return {
            "source": "sklearn.datasets.load_digits: the test set of UCI 'Optical Recognition of Handwritten Digits' "
            "(E. Alpaydin, C. Kaynak, 1998)",
            "licence": "CC BY 4.0 (UCI Machine Learning Repository)",
            "splits": {name: len(examples) for name, examples in self._splits.items()},
            "split_rule": f"one permutation fixed by seed {SPLIT_SEED}, independent of the run's seed; its first "
            f"{self.config.test_fraction:g} are the test split; writers are not separated (the source "
            "does not name them)",
            "levels": 17,
            "labels": "the digit",
            "transformations": [
                "by the source: 32x32 bitmap, set pixels counted in each 4x4 block, giving levels 0..16",
                "float to integer, values unchanged",
            ],
            "files": {SOURCE.name: hashlib.sha256(self._source.read_bytes()).hexdigest()},
        }

    @property
    def _source(self) -> Path:
        import sklearn.datasets

        return Path(sklearn.datasets.__file__).parent / SOURCE

    @cached_property
    def _splits(self) -> dict[str, InMemoryExamples]:
        from sklearn.datasets import load_digits

        source = load_digits()
        images = torch.from_numpy(source.images).to(torch.int16).unsqueeze(1)
        labels = torch.from_numpy(source.target).long()
        order = Streams(SPLIT_SEED).permutation(len(images), "digits split")
        n_test = round(self.config.test_fraction * len(images))
        rows = {"train": order[n_test:], "test": order[:n_test]}
        names = tuple(str(digit) for digit in range(10))
        return {name: InMemoryExamples(images[chosen], labels[chosen], names) for name, chosen in rows.items()}
