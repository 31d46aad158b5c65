"""Writes CIFAR-10's python version as Python 2 wrote the official one, with crops of photographs for images."""

from pathlib import Path

import numpy as np
from photographs import photographs
from PIL import Image

FOLDER = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def python2_bytes(value: bytes) -> bytes:
    """A str of Python 2: SHORT_BINSTRING or BINSTRING."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + len(value).to_bytes(4, "little") + value


def python2_list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def python2_array(pixels: np.ndarray, *, fortran: bool = False) -> bytes:
    """What numpy's __reduce__ gave in Python 2, opcode by opcode."""
    rows, columns = (b"J" + size.to_bytes(4, "little") for size in pixels.shape)
    dtype = b"cnumpy\ndtype\n" + python2_bytes(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + python2_bytes(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_bytes(b"b") + b"\x87R"
    raw = pixels.tobytes(order="F" if fortran else "C")
    order = b"\x88" if fortran else b"\x89"
    return array + b"(K\x01" + rows + columns + b"\x86" + dtype + order + python2_bytes(raw) + b"tb"


def python2_dict(**entries: bytes) -> bytes:
    """A pickle of protocol 2, as Python 2 wrote the official files."""
    items = b"".join(python2_bytes(key.encode()) + value for key, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


def batch(pixels: np.ndarray, labels: list[int], *, fortran: bool = False) -> bytes:
    """One file: rows of 3072 values, and their labels."""
    return python2_dict(
        batch_label=python2_bytes(b"training batch 1 of 5"),
        labels=python2_list([b"K" + bytes([label]) for label in labels]),
        data=python2_array(pixels, fortran=fortran),
        filenames=python2_list([python2_bytes(b"leptodactylus_pentadactylus_s_000004.png")] * len(labels)),
    )


META = python2_dict(
    num_cases_per_batch=b"M\x10\x27",
    label_names=python2_list([python2_bytes(name.encode()) for name in CLASSES]),
    num_vis=b"M\x00\x0c",
)
"""batches.meta."""


def write_cifar10(root: Path, *, n_per_batch: int = 20, seed: int = 0) -> Path:
    """Five training batches and a test batch of `n_per_batch` images below `root`; returns `root`."""
    photos = photographs()
    random = np.random.default_rng(seed)
    (root / FOLDER).mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = np.stack([_crop(photos[i % len(photos)], random) for i in range(n_per_batch)])
        labels = [i % len(CLASSES) for i in range(n_per_batch)]
        (root / FOLDER / name).write_bytes(batch(rows, labels))
    (root / FOLDER / "batches.meta").write_bytes(META)
    return root


def _crop(photograph: Image.Image, random: np.random.Generator) -> np.ndarray:
    """A random square resized to 32x32: the red, then the green, then the blue plane, (3072,) uint8."""
    side = int(random.integers(48, min(photograph.size)))
    left, top = (int(random.integers(0, extent - side)) for extent in photograph.size)
    crop = photograph.resize((32, 32), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(crop).transpose(2, 0, 1).reshape(-1)
