"""Keys of specs that have a new name: an old spec still loads, with a warning that names the new key."""

import warnings
from collections.abc import Iterator
from typing import Any

RENAMED = {
    ("training", "held_out_every"): "validation_every",
    ("training", "held_out_images"): "validation_images",
}
"""Section and old key to the new key."""


def rename_keys(data: dict[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Move each old key of a spec to its new name in place; yield the (old, new) path of each move.

    A new key that is also present wins.
    """
    for (section, old), new in RENAMED.items():
        values = data.get(section)
        if isinstance(values, dict) and old in values:
            value = values.pop(old)
            values.setdefault(new, value)
            yield (section, old), (section, new)


def warn_renamed(place: str, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Issue a FutureWarning, which users see by default."""
    warnings.warn(f"{place}: {'.'.join(old)} is now {'.'.join(new)}; the old name will be removed", FutureWarning, 2)
