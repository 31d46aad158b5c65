"""Writes a small CelebA-HQ in the layout of CelebAMask-HQ, with crops of real photographs in place of the faces."""

import functools
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from moeframe_builtin.datasets.photo_patches import PHOTOS

HEADER = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
COLUMNS = HEADER.split()
HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Bald")
PHOTO_NAMES = ("astronaut", "chelsea", "coffee", "rocket")
FIRST_IN_CELEBA = (1, 162_771, 182_638)
"""The first file of CelebA's train, validation and test part."""


def part_of(index: int) -> int:
    """0 train, 1 validation, 2 test: of ten images in a row the ninth is validation, the tenth test."""
    return {8: 1, 9: 2}.get(index % 10, 0)


def attributes_of(index: int, crop: Image.Image, rng: np.random.Generator) -> dict[str, bool]:
    """Hair colours in turn, each in the training part from eight images on; brightness decides on some, chance on most.

    Images 3, 13, ... are brown-haired besides, since the real list has faces of two hair colours.
    """
    present = dict(zip(COLUMNS, (rng.random(len(COLUMNS)) < 0.2).tolist(), strict=True))
    turn = (index + index // 10) % len(HAIR)
    present |= {name: i == turn for i, name in enumerate(HAIR)}
    present["Brown_Hair"] |= index % 10 == 3
    pixels = np.asarray(crop.convert("L"), float)
    present["Pale_Skin"] = bool(pixels.mean() > 128)
    present["Blurry"] = bool(np.abs(np.diff(pixels)).mean() < 4)
    return present


def write_celeba_hq(root: Path, *, n: int = 24, size: int = 256, zipped: bool = False, seed: int = 0) -> Path:
    """What `dataset.root` is to be: the folder `root`, or CelebAMask-HQ.zip in it. `n` images of `size` pixels a side.

    Of ten images in a row, the ninth belongs to the validation and the tenth to the test part, so n should be over 9.
    """
    rng = np.random.default_rng(seed)
    photos = _photos()
    folder = root / "CelebAMask-HQ"
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    (folder / "CelebAMask-HQ-mask-anno" / "0").mkdir(parents=True)

    attributes = [str(n), HEADER + " "]
    mapping = ["idx      orig_idx    orig_file"]
    partition: dict[str, int] = {}
    for index in range(n):
        crop = _crop(photos[index % len(photos)], size, rng)
        crop.save(folder / "CelebA-HQ-img" / f"{index}.jpg", quality=95)
        present = attributes_of(index, crop, rng)
        attributes.append(f"{index}.jpg  " + " ".join(" 1" if present[name] else "-1" for name in COLUMNS))
        part = part_of(index)
        number = FIRST_IN_CELEBA[part] + 37 * (n - index)
        mapping.append(f"{index:<9}{number - 1:<12}{number:06d}.jpg")
        partition |= {f"{number + step:06d}.jpg": part for step in (0, 1)}  # CelebA has more files than CelebA-HQ
    Image.new("1", (8, 8)).save(folder / "CelebAMask-HQ-mask-anno" / "0" / "00000_hair.png")
    (folder / "README.txt").write_text("CelebAMask-HQ\n")
    (folder / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(attributes) + "\n")
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{name} {partition[name]}\n" for name in sorted(partition)))
    return _zipped(folder) if zipped else root


@functools.cache
def _photos() -> tuple[Image.Image, ...]:
    """Decoded once per process."""
    files = {photo.name: photo.file for photo in PHOTOS}
    return tuple(Image.open(files[name]).convert("RGB") for name in PHOTO_NAMES)


def _crop(photo: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A random square of the photo, resized."""
    side = int(rng.integers(96, min(photo.size) + 1))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photo.size)
    box = (left, top, left + side, top + side)
    return photo.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _zipped(folder: Path) -> Path:
    """Move a folder into an archive beside it."""
    paths = sorted(folder.rglob("*"), reverse=True)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in reversed(paths):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    for file in paths:
        if file.is_file():
            file.unlink()
        else:
            file.rmdir()
    folder.rmdir()
    return path
