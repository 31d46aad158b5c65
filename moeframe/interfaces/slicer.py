"""Slicer: a partition of the data, one slice per expert."""

from abc import abstractmethod
from typing import Any, ClassVar

from moeframe.interfaces.component import Component
from moeframe.interfaces.dataset import Examples
from moeframe.randomness import Streams
from moeframe.shapes import SliceIds

State = dict[str, list[Any]]
"""Lists of numbers or of texts by name: it must survive JSON."""


class Slicer(Component):
    """Assigns every example to exactly one of K slices; thresholds are learned on the training split only."""

    KIND: ClassVar[str] = "slicers"

    class Config(Component.Config):
        def missing(self) -> str | None:
            """A missing file that the slicer needs, and what to do, or None."""
            return None

    def __init__(self, config: Config, *, n_slices: int, streams: Streams):
        self.config = config
        self.n_slices = n_slices
        self.streams = streams

    def fit(self, train: Examples) -> None:
        """Learn thresholds from the training split."""

    @abstractmethod
    def assign(self, examples: Examples) -> SliceIds:
        """Slice number 0 .. n_slices-1 of each example; a function of that example and the fitted state alone."""

    @property
    def slice_names(self) -> list[str]:
        """What each slice holds, in a few words, for tables and plots."""
        return [f"slice {k}" for k in range(self.n_slices)]

    def state(self) -> State:
        """What `fit` learned, by name."""
        return {}

    def restore(self, state: State) -> None:
        """Restore what `state` returned."""
        assert not state, f"{self.name()} has no state to restore"
