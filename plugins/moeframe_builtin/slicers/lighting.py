"""Slices by how bright an image is and from which side it is lit."""

from collections.abc import Iterator
from typing import Literal

import torch

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import Slicer, State
from moeframe.shapes import Levels, PerItem, SliceIds
from moeframe_builtin.slicers.support.by_feature import (
    Balance,
    Feature,
    range_names,
    refuse_no_images,
    slices_of,
    thresholds_of,
    values_of,
)
from moeframe_builtin.slicers.support.luma import LUMA_SCALE, luma


def light_level(images: Levels) -> PerItem:
    """Mean luma (ITU-R BT.601) over all pixels, levels, float64; summed in integers."""
    y = luma(images)
    return y.sum(dim=(1, 2)).double() / (y[0].numel() * LUMA_SCALE)


def light_direction(images: Levels) -> PerItem:
    """Mean luma (ITU-R BT.601) of the right half minus that of the left half, levels, float64; > 0: lit from the right.

    The middle column of an odd width belongs to neither half. Raises DataError for images one pixel wide.
    """
    y = luma(images)
    half = y.shape[2] // 2
    if half == 0:
        raise DataError("lighting: images one pixel wide have no left and right half; use by: level")
    difference = y[:, :, -half:].sum(dim=(1, 2)) - y[:, :, :half].sum(dim=(1, 2))
    return difference.double() / (y.shape[1] * half * LUMA_SCALE)


QUANTITIES: dict[str, tuple[Feature, str]] = {
    "direction": (light_direction, "right - left (levels)"),
    "level": (light_level, "luma (levels)"),
}


class Lighting(Slicer):
    """Slices by the luminance level, by the left-right direction of light, or by both.

    With `both`, slice = (K/2) x direction (0: the lesser, from the left) + level (0: the darkest of K/2). Each of the
    two is cut on its own, so the slices of their product are equal only where level and direction are independent.
    """

    class Config(Slicer.Config):
        type: Literal["lighting"] = "lighting"
        by: Literal["level", "direction", "both"] = "level"
        balance: Balance = "quantile"
        """quantile: slices of equal size; natural: ranges of equal width from the 1st to the 99th percentile."""

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """Two directions times K/2 levels need an even K."""
            if self.by == "both" and facts.n_experts % 2:
                yield (
                    "by",
                    f"both: 2 directions x K/2 levels need an even number of experts, not {facts.n_experts}; "
                    "use an even number, or by: level or by: direction",
                )

    config: Config
    _thresholds: dict[str, list[float]] | None = None

    @property
    def _n_slices_by_quantity(self) -> dict[str, int]:
        """Into how many parts each quantity is cut, the most significant first."""
        if self.config.by != "both":
            return {self.config.by: self.n_slices}
        assert self.n_slices % 2 == 0, "Config.conflicts reports this"
        return {"direction": 2, "level": self.n_slices // 2}

    def fit(self, train: Examples) -> None:
        """Learn the thresholds of each quantity from the training images. Raises DataError when there are none."""
        refuse_no_images(train, self.name())
        self._thresholds = {
            quantity: thresholds_of(values_of(train, QUANTITIES[quantity][0]), n, self.config.balance)
            for quantity, n in self._n_slices_by_quantity.items()
        }

    def assign(self, examples: Examples) -> SliceIds:
        """How many thresholds an image reaches; with `both`, those of direction count K/2 each."""
        ids = torch.zeros(len(examples), dtype=torch.long)
        for quantity, thresholds in self._fitted.items():
            values = values_of(examples, QUANTITIES[quantity][0])
            ids = ids * (len(thresholds) + 1) + slices_of(values, thresholds)
        return ids

    @property
    def slice_names(self) -> list[str]:
        """The range of each quantity in each slice."""
        names = [""]
        for quantity, thresholds in self._fitted.items():
            ranges = range_names(QUANTITIES[quantity][1], thresholds)
            names = [f"{name}, {part}" if name else part for name in names for part in ranges]
        return names

    def state(self) -> State:
        """The thresholds of each quantity, levels."""
        return {f"{quantity}_thresholds": list(thresholds) for quantity, thresholds in self._fitted.items()}

    def restore(self, state: State) -> None:
        """Take back the thresholds."""
        self._thresholds = {quantity: list(state[f"{quantity}_thresholds"]) for quantity in self._n_slices_by_quantity}

    @property
    def _fitted(self) -> dict[str, list[float]]:
        assert self._thresholds is not None, "fit or restore first"
        return self._thresholds
