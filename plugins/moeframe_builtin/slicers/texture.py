"""Slices by the energy of the finest structure of an image."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from moeframe.shapes import Levels, PerItem
from moeframe_builtin.slicers.support.by_feature import FeatureSlicer
from moeframe_builtin.slicers.support.luma import LUMA_SCALE, luma


def _with_edges_repeated(plane: Tensor) -> Tensor:
    """(batch, h, w) with one more pixel on each side, a copy of its neighbour."""
    rows = torch.cat([plane[:, :1], plane, plane[:, -1:]], dim=1)
    return torch.cat([rows[:, :, :1], rows, rows[:, :, -1:]], dim=2)


def laplacian_variance(images: Levels) -> PerItem:
    """Variance over pixels of the Laplacian of the luma, levels squared, float64: high-frequency energy.

    L = 4 Y - (Y above + below + left + right), edges repeated: the stencil and the border of
    `skimage.filters.laplace`. As a measure of fine detail: Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000. By Parseval it weighs spatial frequency (u, v) by (4 - 2 cos u - 2 cos v)², nearly ω⁴ for
    low frequencies, so it passes over shading and broad shapes. Each difference of two neighbours enters L twice with
    opposite signs, so ΣL = 0 and the variance is ΣL² / n; the sum is taken in integers, so equal images tie exactly
    (it fits in 64 bits for 8-bit images of up to 8 million pixels).

    Not divided by the total variance: that ratio is 0/0 for a flat image and greatest where faint noise is all there
    is (a clear sky), which nobody would call textured.
    """
    y = _with_edges_repeated(luma(images))
    centre = y[:, 1:-1, 1:-1]
    laplacian = 4 * centre - y[:, :-2, 1:-1] - y[:, 2:, 1:-1] - y[:, 1:-1, :-2] - y[:, 1:-1, 2:]
    return (laplacian**2).sum(dim=(1, 2)).double() / (centre[0].numel() * LUMA_SCALE**2)


class Texture(FeatureSlicer):
    """Slices of the images from the smoothest to the most finely textured."""

    QUANTITY: ClassVar[str] = "Laplacian variance (levels²)"

    class Config(FeatureSlicer.Config):
        type: Literal["texture"] = "texture"

    config: Config

    def feature(self, images: Levels) -> PerItem:
        """Variance of the Laplacian of the luma, levels squared."""
        return laplacian_variance(images)
