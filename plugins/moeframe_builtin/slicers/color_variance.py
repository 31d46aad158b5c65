"""Slices by how much the colours of an image vary."""

from typing import ClassVar, Literal

from moeframe.shapes import Levels, PerItem
from moeframe_builtin.slicers.support.by_feature import FeatureSlicer


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


class ColorVariance(FeatureSlicer):
    """Slices of the images from the least to the most varied in colour."""

    QUANTITY: ClassVar[str] = "colour variance (levels²)"

    class Config(FeatureSlicer.Config):
        type: Literal["color_variance"] = "color_variance"

    config: Config

    def feature(self, images: Levels) -> PerItem:
        """Total variance of the pixel colours, levels squared."""
        return color_variance(images)
