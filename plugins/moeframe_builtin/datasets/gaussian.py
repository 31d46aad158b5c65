"""Synthetic images of independent quantised Gaussian pixels, whose exact discrete density is known."""

import math
from functools import cached_property
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe.randomness import Streams
from moeframe.shapes import Levels, PerItem

DATA_SEED = 1809  # fixed: every run sees the same images, whatever its seed


class Gaussian(Dataset):
    """Independent quantised Gaussian pixels with a known density: an oracle for tests of the likelihood.

    A pixel is a draw from N(0, std²) on the pixel axis (-1, 1), put into the bin of width 2/levels that holds it; draws
    beyond the axis go into the outermost bins.
    """

    class Config(Dataset.Config):
        type: Literal["gaussian"] = "gaussian"
        channels: int = Field(default=1, ge=1)
        size: int = Field(default=8, ge=1)
        levels: int = Field(default=256, ge=2, le=32768)
        std: float = Field(default=0.5, gt=0)
        n_train: int = Field(default=1024, ge=1)
        n_test: int = Field(default=256, ge=1)

    config: Config

    @property
    def image(self) -> ImageShape:
        """As configured."""
        c = self.config
        return ImageShape(channels=c.channels, height=c.size, width=c.size, levels=c.levels)

    def split(self, name: Split) -> InMemoryExamples:
        """The train or the test draws."""
        return self._splits[name]

    def bits_per_dim(self, images: Levels) -> PerItem:
        """Exact -log2 P(image) under the true discrete density, bits per dimension, float64."""
        return -self._log2_probability[images.long().cpu()].mean(dim=(1, 2, 3))

    @property
    def entropy_bits_per_dim(self) -> float:
        """Expected value of `bits_per_dim`: the least that any model can reach on average."""
        log2_p = self._log2_probability
        return float(-torch.where(torch.isneginf(log2_p), 0.0, log2_p.exp2() * log2_p).sum())

    def card(self) -> dict[str, Any]:
        """Provenance of the draws."""
        return {
            "source": f"synthetic, drawn by moeframe from a fixed seed ({DATA_SEED}), independent of the run's seed",
            "licence": "none needed: generated",
            "splits": {"train": self.config.n_train, "test": self.config.n_test},
            "split_rule": "independent draws from one density",
            "levels": self.config.levels,
            "labels": "none (all zero)",
            "files": {},
            "entropy_bits_per_dim": self.entropy_bits_per_dim,
            "transformations": [
                f"independent draws from N(0, {self.config.std:g}²) per pixel and channel",
                f"quantised to {self.config.levels} equal bins of (-1, 1); draws beyond go into the outermost bins",
            ],
        }

    @cached_property
    def _log2_probability(self) -> Tensor:
        """log2 P(level), (levels,), float64."""
        levels = torch.arange(self.config.levels)
        # The density is symmetric: folding every bin into the lower half keeps log_ndtr accurate in both tails.
        folded = torch.minimum(levels, self.config.levels - 1 - levels).double()
        lower = (2 * folded / self.config.levels - 1) / self.config.std
        upper = (2 * (folded + 1) / self.config.levels - 1) / self.config.std
        below_upper = torch.special.log_ndtr(upper)
        below_lower = torch.special.log_ndtr(torch.where(folded == 0, -math.inf, lower))
        log_p: Tensor = below_upper + torch.log1p(-torch.exp(below_lower - below_upper))
        return log_p / math.log(2)

    @cached_property
    def _splits(self) -> dict[str, InMemoryExamples]:
        return {"train": self._draw("train", self.config.n_train), "test": self._draw("test", self.config.n_test)}

    def _draw(self, split: Split, n: int) -> InMemoryExamples:
        pixels = self.config.std * Streams(DATA_SEED).normal((n, *self.image.tensor_shape), "gaussian dataset", split)
        levels = ((pixels + 1) / 2 * self.config.levels).floor().clamp(0, self.config.levels - 1)
        return InMemoryExamples(levels.to(torch.int16), torch.zeros(n, dtype=torch.long), ("gaussian",))
