"""Image grids as PNG files."""

import io
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from moeframe.errors import InputError
from moeframe.shapes import Levels
from moeframe.storage.atomic import write_file

GAP = 2
"""Pixels between two images."""
GAP_GREY = 225
"""Light, but unlike both black and white image borders."""


def write_grid(path: Path, images: Levels, n_levels: int, columns: int, scale: int) -> None:
    """Write images row by row, each pixel as a `scale` x `scale` square; level 0 is black and n_levels - 1 is white.

    Three channels are RGB; of any other number each channel is drawn in grey, side by side. Raises StorageError.
    """
    from PIL import Image

    n, channels, height, width = images.shape
    assert n > 0
    assert columns > 0
    assert scale > 0
    if channels not in (1, 3):
        images = images.permute(0, 2, 1, 3).reshape(n, 1, height, channels * width)
        channels, width = 1, channels * width
    grey = np.rint(images.cpu().numpy() * (255 / (n_levels - 1))).astype(np.uint8)
    tiles = grey.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)

    step_y, step_x = height * scale + GAP, width * scale + GAP
    rows = -(-n // columns)
    canvas = np.full((rows * step_y + GAP, min(columns, n) * step_x + GAP, channels), GAP_GREY, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = GAP + i // columns * step_y, GAP + i % columns * step_x
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile

    buffer = io.BytesIO()
    Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas).save(buffer, format="PNG", optimize=True)
    write_file(path, buffer.getvalue())


def write_picture(path: Path, image: Integer[Tensor, "channels height width"], n_levels: int) -> None:
    """One image of one or three channels as an 8-bit PNG; level 0 is black and n_levels - 1 is white."""
    from PIL import Image

    grey = np.rint(image.cpu().numpy() * (255 / (n_levels - 1))).astype(np.uint8).transpose(1, 2, 0)
    if grey.shape[2] not in (1, 3):
        raise InputError(f"{path}: an image of {grey.shape[2]} channels cannot be a PNG; write an .npz file")
    buffer = io.BytesIO()
    Image.fromarray(grey[:, :, 0] if grey.shape[2] == 1 else grey).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def require_image_path(path: Path) -> None:
    """Raises InputError for a path that `write_images` would refuse; ask before the images are made."""
    if path.suffix not in (".png", ".npz", ""):
        raise InputError(f"{path}: ends in '{path.suffix}'; name a .png or an .npz file, or a folder")
    if path.suffix == "" and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: already exists and is not an empty folder; name a new folder for the images")


def write_images(path: Path, batches: Iterable[Levels], n_levels: int) -> None:
    """Write images as a PNG grid, as integer levels (n, channels, height, width) for .npz, or a folder of one PNG each.

    A folder holds no more than a batch in memory. Raises InputError for another ending, StorageError when it cannot
    write.
    """
    require_image_path(path)
    if path.suffix == "":
        for i, image in enumerate(itertools.chain.from_iterable(batches)):
            write_picture(path / f"{i:06d}.png", image, n_levels)
        return
    images = torch.cat([batch.cpu().to(torch.uint8 if n_levels <= 256 else torch.int32) for batch in batches])
    if path.suffix == ".png":
        write_grid(path, images, n_levels, columns=min(16, len(images)), scale=max(1, 64 // images.shape[-1]))
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images.numpy().astype(np.int64), levels=n_levels)
    write_file(path, buffer.getvalue())
