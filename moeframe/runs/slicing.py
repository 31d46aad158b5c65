"""Inspecting slices before any training: sizes, thresholds, and a contact sheet of each."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moeframe.data.slices import Slices, cut_slices
from moeframe.data.splits import open_splits
from moeframe.errors import InputError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Examples
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.spec.loader import load_spec
from moeframe.storage.atomic import write_file
from moeframe.storage.images import write_grid

SHOWN = 60
COLUMNS = 20


def slice_data(spec: str | Path, out: Path, overrides: Sequence[str] = ()) -> Slices:
    """Slice the data of a spec as its first seed would, and write slices.npz and contact sheets into `out`.

    Raises SpecError, DataError, or InputError for a spec without a slicer.
    """
    registry = Registry.installed()
    resolved = load_spec(spec, registry, overrides)
    if resolved.slicer is None:
        raise InputError(f"{spec}: has no slicer; add a section 'slicer', for example  slicer: {{type: class_group}}")
    seed, splits = resolved.seeds[0], open_splits(resolved, registry)
    slices = cut_slices(resolved, registry, seed, splits)
    write_slices(out, slices, splits.train, splits.dataset.image, Streams(seed))
    return slices


def write_slices(folder: Path, slices: Slices, train: Examples, image: ImageShape, streams: Streams) -> None:
    """Write slices.npz (slice of every example, state of the slicer) and slice-K.png (random training images)."""
    assert slices.slicer is not None
    buffer = io.BytesIO()
    learned = {f"state/{name}": np.asarray(values) for name, values in slices.slicer.state().items()}
    np.savez(buffer, allow_pickle=False, train=slices.train.numpy(), test=slices.test.numpy(), **learned)
    write_file(folder / "slices.npz", buffer.getvalue())
    for k, members in enumerate(slices.members):
        shown = members[streams.permutation(len(members), "slices/shown", k)[:SHOWN]]
        write_grid(contact_sheet(folder, k), train.images(shown), image.levels, COLUMNS, max(1, 48 // image.width))


def contact_sheet(folder: Path, k: int) -> Path:
    """Return the path of the contact sheet of slice k."""
    return folder / f"slice-{k}.png"
