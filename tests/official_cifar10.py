"""Writes a small CIFAR-10 in the format of its python version, with crops of photographs in place of the objects."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

FOLDER = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_cifar10(root: Path, *, n_per_batch: int = 20, seed: int = 0) -> Path:
    """Five training batches and a test batch of `n_per_batch` images below `root`; returns `root`."""
    photographs = [Image.fromarray(photo()) for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    random = np.random.default_rng(seed)
    (root / FOLDER).mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = np.stack([_crop(photographs[i % len(photographs)], random) for i in range(n_per_batch)])
        labels = [i % len(CLASSES) for i in range(n_per_batch)]
        batch = {b"batch_label": name.encode(), b"labels": labels, b"data": rows}
        (root / FOLDER / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"num_cases_per_batch": n_per_batch, b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    (root / FOLDER / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def _crop(photograph: Image.Image, random: np.random.Generator) -> np.ndarray:
    """A random square resized to 32x32: the red, then the green, then the blue plane, (3072,) uint8."""
    side = int(random.integers(48, min(photograph.size)))
    left, top = (int(random.integers(0, extent - side)) for extent in photograph.size)
    crop = photograph.resize((32, 32), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(crop).transpose(2, 0, 1).reshape(-1)
