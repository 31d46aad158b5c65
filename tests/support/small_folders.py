"""Small folders of image files, for the tests of datasets."""

from pathlib import Path

import torch
from PIL import Image

from moeframe.interfaces.dataset import Examples, in_batches
from moeframe_builtin.datasets.image_folder import ImageFolder


def all_images(examples: Examples) -> torch.Tensor:
    """Every image of a split."""
    return torch.cat([images for _, images in in_batches(examples)])


def write_image(path: Path, *, size=(12, 12), color=(10, 20, 30), mode="RGB") -> Path:
    """A file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def image_folder(root: Path, **settings) -> ImageFolder:
    """The dataset of a folder, at 8x8 pixels unless told otherwise."""
    return ImageFolder(ImageFolder.Config(root=root, **{"size": 8, **settings}))
