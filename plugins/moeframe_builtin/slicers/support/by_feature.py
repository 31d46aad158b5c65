"""Shared by slicers that use one number per image: thresholds learned on train, and the names of the ranges."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Examples, in_batches
from moeframe.interfaces.slicer import Slicer, State
from moeframe.shapes import Levels, PerItem, SliceIds

Balance = Literal["quantile", "natural"]
Feature = Callable[[Levels], PerItem]


def values_of(examples: Examples, feature: Feature) -> PerItem:
    """The feature of every example, float64, read batch by batch."""
    parts = [feature(images) for _, images in in_batches(examples)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def thresholds_of(values: PerItem, n_slices: int, balance: Balance) -> list[float]:
    """The n_slices - 1 thresholds that cut `values`, at least one of them, in their own unit.

    quantile: the sorted values are cut into equal parts; a threshold is the least value of its part.
    natural: n_slices ranges of equal width from the 1st to the 99th percentile (nearest rank below), the outer two
    open; the percentiles keep a single extreme image from setting every threshold. Slices then differ in size.

    >>> thresholds_of(torch.tensor([0.0, 1.0, 2.0, 10.0]), 2, "quantile")
    [2.0]
    >>> thresholds_of(torch.arange(101.0), 2, "natural")
    [50.0]
    """
    ordered = values.sort().values.tolist()
    if balance == "quantile":
        return [ordered[k * len(ordered) // n_slices] for k in range(1, n_slices)]
    low, high = (ordered[percent * (len(ordered) - 1) // 100] for percent in (1, 99))
    return [low + (high - low) * k / n_slices for k in range(1, n_slices)]


def slices_of(values: PerItem, thresholds: Sequence[float]) -> SliceIds:
    """How many thresholds each value reaches; equal values share a slice."""
    return torch.bucketize(values.double(), torch.tensor(thresholds, dtype=torch.float64), right=True)


def range_names(quantity: str, thresholds: Sequence[float]) -> list[str]:
    """The range of the quantity in each slice, to four digits.

    >>> range_names("luma", [10.0, 20.5])
    ['luma < 10', '10 <= luma < 20.5', 'luma >= 20.5']
    """
    if not thresholds:
        return [f"any {quantity}"]
    inner = [f"{low:.4g} <= {quantity} < {high:.4g}" for low, high in pairwise(thresholds)]
    return [f"{quantity} < {thresholds[0]:.4g}", *inner, f"{quantity} >= {thresholds[-1]:.4g}"]


def refuse_no_images(train: Examples, slicer: str) -> None:
    """Raise DataError when the training split is empty."""
    if len(train) == 0:
        raise DataError(f"{slicer}: the training split has no images to learn thresholds from; check the dataset")


@dataclass(frozen=True)
class SlicedSplit:
    """The split that a slicer was fitted on and its slices, so that assigning it does not decode its images again."""

    examples: Examples
    ids: SliceIds


class FeatureSlicer(Slicer):
    """Slices from the least to the greatest value of one feature; a final class says which."""

    QUANTITY: ClassVar[str]
    """Name of the feature in slice names, with its unit."""

    class Config(Slicer.Config):
        balance: Balance = "quantile"
        """quantile: slices of equal size; natural: ranges of equal width from the 1st to the 99th percentile."""

    config: Config
    _thresholds: list[float] | None = None
    _train: SlicedSplit | None = None

    @abstractmethod
    def feature(self, images: Levels) -> PerItem:
        """One number per image, float64: the same bits whatever other images share the batch."""

    def fit(self, train: Examples) -> None:
        """Learn the thresholds from the training values. Raises DataError when there are none."""
        refuse_no_images(train, self.name())
        values = values_of(train, self.feature)
        self._thresholds = thresholds_of(values, self.n_slices, self.config.balance)
        self._train = SlicedSplit(train, slices_of(values, self._thresholds))

    def assign(self, examples: Examples) -> SliceIds:
        """How many thresholds an image's feature reaches."""
        if self._train is not None and self._train.examples is examples:
            return self._train.ids.clone()
        return slices_of(values_of(examples, self.feature), self._fitted)

    @property
    def slice_names(self) -> list[str]:
        """The range of the feature in each slice."""
        return range_names(self.QUANTITY, self._fitted)

    def state(self) -> State:
        """The n_slices - 1 thresholds, in the unit of the feature."""
        return {"thresholds": list(self._fitted)}

    def restore(self, state: State) -> None:
        """Take back the thresholds."""
        self._thresholds = list(state["thresholds"])
        self._train = None

    @property
    def _fitted(self) -> list[float]:
        assert self._thresholds is not None, "fit or restore first"
        return self._thresholds
