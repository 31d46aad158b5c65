"""Small LMDB files of LSUN and the dataset that reads them."""

from pathlib import Path

import torch
from official_lsun import crops, write_lmdb

from moeframe.interfaces.dataset import Examples, in_batches
from moeframe_builtin.datasets.lsun_church import LsunChurch

TRAIN, VAL = "church_outdoor_train_lmdb", "church_outdoor_val_lmdb"


def church(root: Path, **settings) -> LsunChurch:
    return LsunChurch(LsunChurch.Config(root=root, **{"size": 32, "verify": False, **settings}))


def all_images(examples: Examples) -> torch.Tensor:
    return torch.cat([images for _, images in in_batches(examples)])


def write(root: Path, train: dict[str | bytes, bytes], val: dict[str | bytes, bytes] | None = None) -> Path:
    write_lmdb(root / TRAIN, train.items())
    write_lmdb(root / VAL, crops(4, 0, "val") if val is None else val.items())
    return root
