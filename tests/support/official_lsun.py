"""Small LSUN church folders in the official format, from scikit-image's photographs, for tests and benchmarks."""

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from photographs import photographs
from PIL import Image

SHORTER_SIDE = 256
MAP_SIZE = 1 << 40  # what LSUN's own script asks for; the file grows only as it is filled


def crops(n: int, seed: int, split: str) -> Iterator[tuple[str, bytes]]:
    """(key, WebP) of `n` crops, shorter side 256 pixels, landscape more often than portrait; made when asked for."""
    for i in range(n):
        yield _crop(i, seed, split)


@functools.lru_cache(maxsize=64)  # the few of a test, which many tests write
def _crop(i: int, seed: int, split: str) -> tuple[str, bytes]:
    key = hashlib.sha1(f"{seed} {split} {i}".encode(), usedforsecurity=False).hexdigest()
    random = np.random.default_rng([seed, int(key[:8], 16)])
    photograph = photographs()[i % len(photographs())]
    aspect = random.uniform(1.0, 1.6)
    shape = np.array([aspect, 1.0] if random.uniform() < 0.75 else [1.0, aspect])  # width, height
    largest = min(np.array(photograph.size) / shape)
    width, height = (int(side) for side in shape * largest * random.uniform(0.4, 0.95))
    left, top = (
        int(random.integers(0, whole - part + 1)) for whole, part in zip(photograph.size, (width, height), strict=True)
    )
    size = tuple(round(SHORTER_SIDE * side / min(width, height)) for side in (width, height))
    crop = photograph.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.LANCZOS)
    return key, as_webp(crop)


def as_webp(image: Image.Image, quality: int = 75) -> bytes:
    """The image as the bytes of a lossy WebP file."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality)
    return file.getvalue()


def write_lmdb(folder: Path, values: Iterable[tuple[str | bytes, bytes]]) -> Path:
    """A folder with data.mdb and lock.mdb that holds the values, text keys as ASCII; closed on return."""
    folder.mkdir(parents=True)
    environment = lmdb.open(str(folder), map_size=MAP_SIZE)
    values = iter(values)
    while some := list(islice(values, 1000)):
        with environment.begin(write=True) as transaction:
            for key, value in some:
                transaction.put(key.encode("ascii") if isinstance(key, str) else key, value)
    environment.close()
    return folder


def write_lsun(root: Path, *, n_train: int = 24, n_val: int = 8, seed: int = 0) -> Path:
    """Both LMDB folders below `root`, the same bytes of every image for the same seed; returns `root`."""
    for split, n in (("train", n_train), ("val", n_val)):
        write_lmdb(root / f"church_outdoor_{split}_lmdb", crops(n, seed, split))
    return root
