"""What a reviewer needs to know of the data: its card, its duplicates, and test images that leak into train."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import Assembly
from moeframe.duplicates import METHOD, Duplicates, find_duplicates, fingerprints_of
from moeframe.interfaces.dataset import Examples
from moeframe.report.grids import write_grid
from moeframe.storage import write_file

CARD = "card.json"
LEAKS = "duplicates.png"


def write_provenance(folder: Path, assembly: Assembly) -> None:
    """Write card.json and, where test images also stand in train, duplicates.png into the run's folder.

    Every image is read once. Raises DataError for one that cannot be.
    """
    levels = assembly.image.levels
    found = find_duplicates(fingerprints_of(assembly.train, levels), fingerprints_of(assembly.test, levels))
    if found.shown:
        in_test, in_train = (torch.tensor(rows) for rows in zip(*found.shown, strict=True))
        pairs = torch.cat([assembly.test.images(in_test), assembly.train.images(in_train)])
        write_grid(folder / LEAKS, pairs, levels, len(found.shown), max(1, 64 // assembly.image.width))
    card = {**assembly.dataset.card(), "duplicates": _described(found, assembly.train, assembly.test)}
    text = json.dumps(card, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # Last, because its presence says that the data has been looked through.
    write_file(folder / CARD, text.encode())


def _described(found: Duplicates, train: Examples, test: Examples) -> dict[str, Any]:
    shares = {
        "test_images": len(test),
        "leaked_exactly": f"{found.exact.test_images_in_train / len(test):.2%}",
        "leaked_nearly": f"{found.near.test_images_in_train / len(test):.2%}",
    }
    pairs = [f"{_name(test, i)} = {_name(train, j)}" for i, j in found.shown]
    return {
        "exact": asdict(found.exact),
        "near": asdict(found.near),
        "leakage": shares,
        "first_test_images_in_train": pairs,
        "method": METHOD,
    }


def _name(examples: Examples, i: int) -> str:
    return examples.names[i] if examples.names else f"number {i}"
