"""Patches of the colour photographs in the wheels of scikit-image and scikit-learn."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split

MIN_CONTRAST = 8.0
"""Patches below this contrast are nearly flat (sky, black space) and left out."""

TEST_SHARE = 4
"""The rightmost 1/4 of a photo's patch columns is the test split."""


@dataclass(frozen=True)
class Photo:
    """One photograph: its file, author and licence."""

    name: str
    package: str
    path: str
    credit: str
    licence: str

    @property
    def file(self) -> Path:
        """The file inside the installed package. Read directly: `skimage.data` would download a missing one."""
        spec = find_spec(self.package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        return Path(*folders[:1]) / self.path

    def lacks(self) -> str | None:
        """Why the photo cannot be used and what to do, or None."""
        if self.file.is_file():
            return None
        return (
            f"photo {self.name!r}: the installed {self.package} has no {self.path}; "
            f"reinstall it from PyPI, whose wheel carries the photo"
        )


# The stereo motorcycle is left out: its terms are not stated, and its two views show one scene.
PHOTOS = (
    Photo("astronaut", "skimage", "data/astronaut.png", "NASA", "public domain"),
    Photo("chelsea", "skimage", "data/chelsea.png", "Stefan van der Walt", "CC0"),
    Photo("coffee", "skimage", "data/coffee.png", "Rachel Michetti, Pikolo Espresso Bar", "CC0"),
    Photo("hubble_deep_field", "skimage", "data/hubble_deep_field.jpg", "NASA, HubbleSite", "public domain"),
    Photo("immunohistochemistry", "skimage", "data/ihc.png", "CMMI", "no known copyright restrictions"),
    Photo("retina", "skimage", "data/retina.jpg", "Mikael Häggström", "CC0"),
    Photo("rocket", "skimage", "data/rocket.jpg", "SpaceX", "public domain"),
    Photo("china", "sklearn", "datasets/images/china.jpg", "danielbuechele (Flickr)", "CC BY 2.0"),
    Photo("flower", "sklearn", "datasets/images/flower.jpg", "vultilion (Flickr)", "CC BY 2.0"),
)


def contrast(patches: Tensor) -> Tensor:
    """Standard deviation over the pixels of a patch, in levels, averaged over the channels; one number per patch."""
    return patches.double().flatten(2).std(dim=2, correction=0).mean(dim=1)


def with_content(grid: Tensor) -> Tensor:
    """The patches of a grid (rows, columns, ...) that are not nearly flat, row by row."""
    patches = grid.flatten(0, 1)
    return patches[contrast(patches) >= MIN_CONTRAST]


class PhotoPatches(Dataset):
    """Patches of nine colour photographs from the scikit-image and scikit-learn wheels, labelled by photo."""

    class Config(Dataset.Config):
        type: Literal["photo_patches"] = "photo_patches"
        size: Literal[8, 16, 32] = 16
        downscale: Literal[1, 2, 4] = 1
        """Shrink each photo by this factor first (mean of each block), so that a small patch shows more."""

    config: Config

    @property
    def image(self) -> ImageShape:
        """Three channels of 8 bits."""
        return ImageShape(channels=3, height=self.config.size, width=self.config.size, levels=256)

    def split(self, name: Split) -> InMemoryExamples:
        """The train or the test patches, photo by photo, row by row."""
        return self._splits[name]

    def missing(self) -> str | None:
        """Which photos the installed packages lack."""
        return "; ".join(problem for photo in PHOTOS if (problem := photo.lacks())) or None

    def card(self) -> dict[str, Any]:
        """Provenance of the patches."""
        counts = {name: examples.labels.bincount(minlength=len(PHOTOS)) for name, examples in self._splits.items()}
        return {
            "source": "photographs in the wheels of scikit-image and scikit-learn, one by one under `photos`",
            "licence": "public domain, CC0, CC BY 2.0 or no known restrictions, one by one under `photos`",
            "photos": {
                photo.name: {
                    "credit": photo.credit,
                    "licence": photo.licence,
                    **{name: int(count[number]) for name, count in counts.items()},
                }
                for number, photo in enumerate(PHOTOS)
            },
            "splits": {name: len(examples) for name, examples in self._splits.items()},
            "split_rule": f"in each photo the rightmost 1/{TEST_SHARE} of the patch columns is test, the column "
            "left of it is unused, the rest is train; the photos are the same in both splits",
            "levels": 256,
            "labels": "the source photo",
            "transformations": [
                "decoded to 8-bit RGB",
                f"shrunk {self.config.downscale} times, each pixel the mean of a block"
                if self.config.downscale > 1
                else "not resized",
                f"cut into non-overlapping {self.config.size}x{self.config.size} patches on a grid from the top left",
                f"patches of contrast below {MIN_CONTRAST:g} levels left out (standard deviation over the pixels, mean "
                "over the channels)",
            ],
            "files": {photo.path: hashlib.sha256(photo.file.read_bytes()).hexdigest() for photo in PHOTOS},
        }

    @cached_property
    def _splits(self) -> dict[str, InMemoryExamples]:
        if problem := self.missing():
            raise DataError(problem)
        pieces = list(self._pieces())
        names = tuple(photo.name for photo in PHOTOS)
        return {
            split: InMemoryExamples(
                torch.cat([patches for of, _, patches in pieces if of == split]),
                torch.cat([torch.full((len(patches),), number) for of, number, patches in pieces if of == split]),
                names,
            )
            for split in ("train", "test")
        }

    def _pieces(self) -> Iterator[tuple[Split, int, Tensor]]:
        """(split, photo number, patches) for each split of each photo."""
        for number, photo in enumerate(PHOTOS):
            grid = self._grid(photo)
            columns = grid.shape[1]
            n_test = max(1, columns // TEST_SHARE)
            yield "train", number, with_content(grid[:, : columns - n_test - 1])
            yield "test", number, with_content(grid[:, columns - n_test :])

    def _grid(self, photo: Photo) -> Tensor:
        """All patches of a photo, (rows, columns, 3, size, size), int16."""
        import numpy as np
        from PIL import Image

        try:
            with Image.open(photo.file) as file:
                pixels = torch.from_numpy(np.array(file.convert("RGB").reduce(self.config.downscale)))
        except OSError as cause:
            raise DataError(f"{photo.file} cannot be decoded ({cause}); reinstall {photo.package}") from cause
        size = self.config.size
        channels_first = pixels.to(torch.int16).permute(2, 0, 1)
        return channels_first.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4)
