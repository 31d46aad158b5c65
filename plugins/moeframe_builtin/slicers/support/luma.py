"""Luma of integer images, exact."""

import torch
from torch import Tensor

from moeframe.errors import DataError
from moeframe.shapes import Levels

LUMA_SCALE = 1000
"""Units of `luma` per level."""
REC_601 = (299, 587, 114)


def luma(images: Levels) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), or the grey level, int64 thousandths of a level, (batch, h, w).

    In integers, so that sums over pixels do not depend on the order in which they are taken. Raises DataError for
    images with neither one nor three channels.
    """
    if images.shape[1] == 1:
        return images[:, 0].long() * LUMA_SCALE
    if images.shape[1] != len(REC_601):
        raise DataError(f"luma is defined for images of 1 or 3 channels, and these have {images.shape[1]}")
    return (images.long() * torch.tensor(REC_601).view(1, 3, 1, 1)).sum(dim=1)
