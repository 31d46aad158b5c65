"""card.json: the sources and licences of data and experts, duplicates, and test images that leak into training."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import Assembly
from moeframe.data.duplicates import METHOD, Duplicates, find_duplicates, fingerprints_of
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.expert import Expert
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.images import write_grid
from moeframe.storage.results import read_json
from moeframe.storage.run_folder import CARD, LEAKS


def write_data_card(folder: Path, assembly: Assembly, data: Mapping[str, Any]) -> None:
    """Write card.json into a run folder: the facts of `inspect_data`, and where the experts come from."""
    write_file(folder / CARD, as_json({**data, "experts": _experts(assembly)}))


def inspect_data(assembly: Assembly, folder: Path) -> dict[str, Any]:
    """Return the facts about the data, duplicates included, and write duplicates.png into `folder`.

    Every image is read once. Raises DataError for an image that cannot be read.
    """
    levels = assembly.image.levels
    found = find_duplicates(fingerprints_of(assembly.train, levels), fingerprints_of(assembly.test, levels))
    if found.shown:
        in_test, in_train = (torch.tensor(rows) for rows in zip(*found.shown, strict=True))
        pairs = torch.cat([assembly.test.images(in_test), assembly.train.images(in_train)])
        write_grid(folder / LEAKS, pairs, levels, len(found.shown), max(1, 64 // assembly.image.width))
    return {**assembly.dataset.card(), "duplicates": _described(found, assembly.train, assembly.test)}


def licence_warnings(folder: Path) -> list[str]:
    """Return a warning per expert whose licence forbids commercial use; none without a card."""
    card = read_json(folder / CARD) if (folder / CARD).exists() else {}
    return list(dict.fromkeys(expert["warning"] for expert in card.get("experts", ()) if "warning" in expert))


def non_commercial(licence: str) -> bool:
    """Return whether a licence is for non-commercial use only.

    >>> non_commercial("CC BY-NC 4.0"), non_commercial("for Non-Commercial research"), non_commercial("Apache-2.0")
    (True, True, False)
    """
    return re.search(r"\bNC\b|(?i:non[- ]?commercial)", licence) is not None


def _experts(assembly: Assembly) -> list[dict[str, Any]]:
    """Describe each expert and the trunk: type, and the provenance of pretrained weights."""
    experts = []
    for k, expert in enumerate(assembly.model.experts):
        assert isinstance(expert, Expert)
        entry: dict[str, Any] = {"number": k, "type": expert.name(), **expert.provenance()}
        low, high = expert.log_snr_range
        if math.isfinite(low) or math.isfinite(high):
            entry |= {"valid_log_snr": f"{low:.4g} to {high:.4g}", "outside": expert.config.outside}
        experts.append(_with_warning(entry, f"expert {k} ({expert.name()})"))
    trunk = assembly.model.trunk
    if trunk is not None:
        entry = {"number": "trunk", "type": trunk.name(), **trunk.provenance()}
        experts.append(_with_warning(entry, f"the trunk ({trunk.name()})"))
    return experts


def _with_warning(entry: dict[str, Any], which: str) -> dict[str, Any]:
    licence = str(entry.get("licence", ""))
    if non_commercial(licence):
        entry["warning"] = (
            f"{which}: its weights are licensed under {licence}: they and any merge that contains them must not "
            "be used commercially"
        )
    return entry


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
