"""A folder of image files, decoded one by one when they are asked for."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, Split
from moeframe.randomness import derive_key
from moeframe.shapes import ItemIds, Levels

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_SEED = 20120807  # fixed: every run, whatever its seed, holds out the same files


@dataclass(frozen=True)
class ImageFile:
    """One file: its path, its name below the split's folder (with `/`), and its class."""

    path: Path
    name: str

    @property
    def label(self) -> str:
        """The outermost class folder; empty for a file that lies in none."""
        return self.name.split("/")[0] if "/" in self.name else ""


def image_files(folder: Path) -> list[ImageFile]:
    """All images below a folder, sorted by name; hidden files and folders are passed over."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    files = (ImageFile(path, path.relative_to(folder).as_posix()) for path in paths)
    return sorted((f for f in files if "/." not in f"/{f.name}"), key=lambda file: file.name)


def is_held_out(name: str, test_fraction: float) -> bool:
    """Whether a file belongs to the test split: a function of its name alone, so a new file moves no other."""
    return derive_key(SPLIT_SEED, "image_folder split", name) < test_fraction * 2**63


def decode(path: Path, *, size: int, channels: int) -> torch.Tensor:
    """Levels of one image, (channels, size, size). Raises DataError naming the file when it is no sound 8-bit image."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        if path.stat().st_size == 0:
            raise DataError(f"image {path} is empty (0 bytes); replace or delete it")
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    except DataError:
        raise
    except Exception as cause:  # decoders raise nearly anything on corrupt bytes
        raise DataError(
            f"image {path} cannot be decoded ({type(cause).__name__}: {cause}); replace or delete it"
        ) from cause
    if image.mode == "F" or image.mode.startswith("I"):
        raise DataError(f"image {path} has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette goes to colours first: its transparency has no other conversion
    image = image.convert("L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).long().reshape(size, size, channels).permute(2, 0, 1)


class FolderExamples:
    """A split whose images are decoded from their files whenever they are fetched."""

    def __init__(self, files: Sequence[ImageFile], label_names: tuple[str, ...], *, size: int, channels: int):
        self.files = tuple(files)
        self.attributes: Mapping[str, torch.Tensor] = {}
        self.label_names = label_names
        self.labels = torch.tensor([label_names.index(file.label) for file in self.files], dtype=torch.long)
        self._size = size
        self._channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def images(self, indices: ItemIds) -> Levels:
        """The images at `indices`. Raises DataError naming the first file that cannot be decoded."""
        images = torch.empty((len(indices), self._channels, self._size, self._size), dtype=torch.long)
        for row, index in enumerate(indices.tolist()):
            images[row] = decode(self.files[index].path, size=self._size, channels=self._channels)
        return images


class ImageFolder(Dataset):
    """Your own images: a folder with train/ and test/, or one tree that is split by file name.

    Folders below the split's folder are classes: the outermost one names the label.
    """

    class Config(Dataset.Config):
        type: Literal["image_folder"] = "image_folder"
        root: Path
        size: int = Field(ge=1, le=4096)
        channels: Literal[1, 3] = 3
        test_fraction: float = Field(default=0.1, ge=0.01, le=0.9)
        """Share of the files held out when there are no train/ and test/ folders."""

    config: Config

    @property
    def image(self) -> ImageShape:
        """Square images of 8 bits."""
        c = self.config
        return ImageShape(channels=c.channels, height=c.size, width=c.size, levels=256)

    def split(self, name: Split) -> FolderExamples:
        """The train or the test files, sorted by name."""
        return self._splits[name]

    def missing(self) -> str | None:
        """What the folder lacks and where to put it."""
        try:
            self._files  # noqa: B018  (listing the folder is the check)
        except DataError as problem:
            return str(problem)
        return None

    def card(self) -> dict[str, Any]:
        """Provenance of the folder; `listing_sha256` changes when a file is added, removed, renamed or resized."""
        listing = "\n".join(
            f"{split}/{file.name} {file.path.stat().st_size}" for split, files in self._files.items() for file in files
        )
        c = self.config
        return {
            "source": str(c.root),
            "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "licence": "not known to moeframe: the user's own files",
            "splits": {name: len(files) for name, files in self._files.items()},
            "split_rule": "folders train/ and test/"
            if self._has_split_folders
            else f"a file is test when the hash of its name falls below {c.test_fraction:g}; duplicates "
            "are not looked for",
            "levels": 256,
            "labels": "outermost class folder",
            "transformations": [
                f"files ending in {' '.join(EXTENSIONS)}, hidden ones passed over; of an animation the first frame",
                "turned as their EXIF orientation says; transparency dropped",
                f"converted to 8-bit {'grey (PIL L, ITU-R 601)' if c.channels == 1 else 'RGB'}",
                "cropped to the central square",
                f"resized to {c.size}x{c.size} with PIL LANCZOS (antialiased); smaller images are enlarged",
            ],
        }

    @property
    def _root(self) -> Path:
        return self.config.root.expanduser()

    @property
    def _has_split_folders(self) -> bool:
        return (self._root / "train").is_dir() and (self._root / "test").is_dir()

    @cached_property
    def _files(self) -> dict[str, list[ImageFile]]:
        root = self._root
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise DataError(f"image_folder: root {root} {what}; put the images there or set dataset.root")
        if self._has_split_folders:
            files = {name: image_files(root / name) for name in ("train", "test")}
            mend = "put some into {root}/{name}"
        else:
            for name, other in (("train", "test"), ("test", "train")):
                if (root / name).is_dir():
                    raise DataError(f"image_folder: {root} has {name}/ but no {other}/; add it, or rename {name}/")
            everything = image_files(root)
            if not everything:
                raise DataError(f"image_folder: {root} holds no images ({' '.join(EXTENSIONS)}); put some there")
            held_out = [is_held_out(file.name, self.config.test_fraction) for file in everything]
            files = {
                "train": [file for file, out in zip(everything, held_out, strict=True) if not out],
                "test": [file for file, out in zip(everything, held_out, strict=True) if out],
            }
            mend = "of {n} none fell there; add images, change dataset.test_fraction, or make train/ and test/ folders"
        n = sum(len(part) for part in files.values())
        for name, part in files.items():
            if not part:
                raise DataError(f"image_folder: no {name} images: {mend.format(root=root, name=name, n=n)}")
        return files

    @cached_property
    def _splits(self) -> dict[str, FolderExamples]:
        # One numbering of the classes for both splits.
        names = tuple(sorted({file.label for files in self._files.values() for file in files}))
        c = self.config
        return {
            split: FolderExamples(files, names, size=c.size, channels=c.channels)
            for split, files in self._files.items()
        }
