"""Slices by how much the colours of an image vary."""

from typing import Literal

import torch

from moeframe.interfaces.dataset import Examples, in_batches
from moeframe.interfaces.slicer import Slicer, State
from moeframe.shapes import Levels, PerItem, SliceIds


def color_variance(images: Levels) -> PerItem:
    """Total variance of the pixel colours: sum over channels of the variance over pixels, levels squared, float64.

    Var = (n Σx² - (Σx)²) / n², of the n pixels of a channel. The numerator is taken in integers: equal images tie
    exactly, whatever batch they come in. Colours are as stored (RGB, or grey); a change of scale, such as to [0, 1],
    would scale thresholds alike and leave the slices as they are.
    """
    pixels = images.long().flatten(2)
    n = pixels.shape[2]
    numerator = n * (pixels**2).sum(dim=2) - pixels.sum(dim=2) ** 2
    return numerator.sum(dim=1).double() / n**2


class ColorVariance(Slicer):
    """Equal slices of the training images from the least to the most varied in colour."""

    class Config(Slicer.Config):
        type: Literal["color_variance"] = "color_variance"

    config: Config
    _thresholds: list[float] | None = None

    def fit(self, train: Examples) -> None:
        """Cut the sorted training values into n_slices equal parts; a threshold is the least value of its part."""
        values = self._values(train).sort().values
        self._thresholds = [float(values[k * len(values) // self.n_slices]) for k in range(1, self.n_slices)]

    def assign(self, examples: Examples) -> SliceIds:
        """How many thresholds an image's colour variance reaches; equal values share a slice."""
        assert self._thresholds is not None, "fit or restore first"
        thresholds = torch.tensor(self._thresholds, dtype=torch.float64)
        return torch.bucketize(self._values(examples), thresholds, right=True)

    def state(self) -> State:
        """The n_slices - 1 thresholds, levels squared."""
        assert self._thresholds is not None, "fit first"
        return {"thresholds": list(self._thresholds)}

    def restore(self, state: State) -> None:
        """Take back the thresholds."""
        self._thresholds = list(state["thresholds"])

    @staticmethod
    def _values(examples: Examples) -> torch.Tensor:
        parts = [color_variance(images) for _, images in in_batches(examples)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)
