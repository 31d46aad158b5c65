"""Slices: which training and test images each expert specialises in."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Integer
from torch import Tensor

from moeframe.data.splits import Splits
from moeframe.errors import DataError
from moeframe.interfaces.slicer import Slicer
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.spec.schema import RunSpec


@dataclass(frozen=True)
class Slices:
    """The slice of every training and test example."""

    slicer: Slicer | None
    train: Integer[Tensor, " train"]
    test: Integer[Tensor, " test"]
    n_slices: int

    @property
    def names(self) -> list[str]:
        """A title per slice."""
        return self.slicer.slice_names if self.slicer is not None else ["all images"]

    @property
    def train_sizes(self) -> list[int]:
        """Training examples per slice."""
        return torch.bincount(self.train, minlength=self.n_slices).tolist()

    @property
    def test_sizes(self) -> list[int]:
        """Test examples per slice."""
        return torch.bincount(self.test, minlength=self.n_slices).tolist()

    @property
    def tiny(self) -> list[int]:
        """Slices with under a tenth of an even share of the training split."""
        return [k for k, size in enumerate(self.train_sizes) if 10 * self.n_slices * size < len(self.train)]

    @property
    def cautions(self) -> list[str]:
        """One caution per slice, empty for a slice with enough images."""
        found = []
        for k, (train, test) in enumerate(zip(self.train_sizes, self.test_sizes, strict=True)):
            few = f"{train} training images, under a tenth of an even share" if k in self.tiny else ""
            none = "no test images, so nothing is measured on it" if test == 0 else ""
            found.append("; ".join(filter(None, (few, none))))
        return found

    def warnings(self) -> list[str]:
        """The cautions as sentences that name their slice."""
        return [f"slice {k} ({self.names[k]}) has {caution}" for k, caution in enumerate(self.cautions) if caution]

    @property
    def shares(self) -> tuple[float, ...]:
        """Each slice's share of the training split."""
        return tuple(size / len(self.train) for size in self.train_sizes)

    @cached_property
    def members(self) -> list[Tensor]:
        """Indices of the training examples of each slice."""
        return [torch.nonzero(self.train == k).squeeze(1) for k in range(self.n_slices)]


def cut_slices(spec: RunSpec, registry: Registry, seed: int, splits: Splits) -> Slices:
    """Fit the slicer on the training split and assign both splits; without a slicer all images are one slice.

    Raises DataError, with the place in the spec, when the slicer fails or leaves a slice empty.
    """
    slicer = build_slicer(spec, registry, seed)
    if slicer is None:
        train_ids, test_ids = (torch.zeros(len(split), dtype=torch.long) for split in (splits.train, splits.test))
        return Slices(None, train_ids, test_ids, n_slices=1)
    k = slicer.n_slices
    try:
        slicer.fit(splits.train)
        slices = Slices(slicer, slicer.assign(splits.train).long(), slicer.assign(splits.test).long(), k)
    except DataError as problem:
        raise DataError(f"{spec.place_of('slicer')}: {problem}") from problem
    _check(slices, spec)
    return slices


def build_slicer(spec: RunSpec, registry: Registry, seed: int) -> Slicer | None:
    """The slicer of a spec, not fitted yet; None for a spec without one."""
    if spec.slicer is None:
        return None
    return registry.get(Slicer, spec.slicer.type)(spec.slicer, n_slices=spec.n_experts, streams=Streams(seed))


def _check(slices: Slices, spec: RunSpec) -> None:
    """Raise DataError for slice numbers out of range and for slices without training images."""
    assert spec.slicer is not None
    k = slices.n_slices
    for ids in (slices.train, slices.test):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < k:
            found = f"{int(ids.min())} .. {int(ids.max())}"
            raise DataError(
                f"{spec.place_of('slicer')}: '{spec.slicer.type}' made slices {found} for {k} experts, "
                f"which have 0 .. {k - 1}; change the number of experts to match"
            )
    empty = [str(i) for i, size in enumerate(slices.train_sizes) if size == 0]
    if empty:
        raise DataError(
            f"{spec.place_of('slicer')}: '{spec.slicer.type}' leaves slice {', '.join(empty)} of {k} without "
            f"training images (sizes {slices.train_sizes}); use fewer experts or another slicer"
        )
