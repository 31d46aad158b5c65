"""Slices made of whole classes, given or balanced by size."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import Slicer, State
from moeframe.shapes import SliceIds
from moeframe_builtin.slicers.support.by_feature import Balance
from moeframe_builtin.slicers.support.grouping import balanced_groups, natural_groups

Groups = Sequence[Sequence[int]]


def problems_of(groups: Groups, n_classes: int) -> list[str]:
    """Why the groups are not a partition of the classes 0 .. n_classes-1."""
    places = [(number, group) for group, numbers in enumerate(groups) for number in numbers]
    listed = [number for number, _ in places]
    twice = [number for number in sorted(set(listed)) if listed.count(number) > 1]
    unknown = sorted(set(listed) - set(range(n_classes)))
    left_out = sorted(set(range(n_classes)) - set(listed))
    found = [
        f"class {number} is in groups {', '.join(str(group) for at, group in places if at == number)}"
        for number in twice
    ]
    if unknown:
        found.append(f"no such class: {', '.join(map(str, unknown))} (the data has classes 0..{n_classes - 1})")
    if left_out:
        found.append(f"in no group: class {', '.join(map(str, left_out))}")
    return found


class ClassGroup(Slicer):
    """Whole classes per expert: the groups you name, or groups of about equal size or number."""

    class Config(Slicer.Config):
        type: Literal["class_group"] = "class_group"
        groups: tuple[tuple[int, ...], ...] | None = None
        """Class numbers of each slice; left out, the classes are grouped as `balance` says."""
        balance: Balance = "quantile"
        """Without groups. quantile: slices of about equal size; natural: about as many classes each, in their order."""

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """One group per expert."""
            if self.groups is not None and len(self.groups) != facts.n_experts:
                yield (
                    "groups",
                    f"{len(self.groups)} groups for {facts.n_experts} experts; give one group of classes per expert",
                )
            if self.groups is not None and self.balance == "natural":
                yield "balance", "groups already say which classes go together; leave out either groups or balance"

    config: Config
    _slice_of_class: list[int] | None = None
    _label_names: tuple[str, ...] = ()

    def fit(self, train: Examples) -> None:
        """Check the given groups against the classes, or balance groups on the training split."""
        counts = train.labels.bincount(minlength=len(train.label_names)).tolist()
        groups = self._grouped(counts) if self.config.groups is None else self.config.groups
        assert len(groups) == self.n_slices, "Config.conflicts reports this"
        if found := problems_of(groups, len(counts)):
            raise DataError(f"class_group: {'; '.join(found)}; each class belongs to exactly one group")
        slice_of_class = {number: group for group, numbers in enumerate(groups) for number in numbers}
        self._slice_of_class = [slice_of_class[number] for number in range(len(counts))]
        self._label_names = train.label_names

    def _grouped(self, counts: list[int]) -> list[list[int]]:
        present = [number for number, count in enumerate(counts) if count > 0]
        if len(present) < self.n_slices:
            raise DataError(
                f"class_group: {self.n_slices} slices need as many classes, but the training data has {len(present)}; "
                f"use at most {len(present)} experts or another slicer"
            )
        if self.config.balance == "quantile":
            return balanced_groups(counts, self.n_slices)
        groups = natural_groups(present, self.n_slices)
        groups[-1] += [number for number, count in enumerate(counts) if count == 0]  # test images may be of these
        return groups

    def assign(self, examples: Examples) -> SliceIds:
        """The group of each example's class."""
        assert self._slice_of_class is not None, "fit or restore first"
        n_classes = len(self._slice_of_class)
        unknown = sorted({label for label in examples.labels.tolist() if label >= n_classes})
        if unknown:
            raise DataError(
                f"class_group: class {', '.join(map(str, unknown))} is not among the {n_classes} of the training data"
            )
        return torch.tensor(self._slice_of_class)[examples.labels]

    @property
    def slice_names(self) -> list[str]:
        """The label names of each slice's classes."""
        assert self._slice_of_class is not None, "fit or restore first"
        return [
            ", ".join(name for name, group in zip(self._label_names, self._slice_of_class, strict=True) if group == k)
            for k in range(self.n_slices)
        ]

    def state(self) -> State:
        """Slice number and name of each class."""
        assert self._slice_of_class is not None, "fit first"
        return {"slice_of_class": list(self._slice_of_class), "label_names": list(self._label_names)}

    def restore(self, state: State) -> None:
        """Restore the slice number and the name of each class."""
        self._slice_of_class = list(state["slice_of_class"])
        self._label_names = tuple(state["label_names"])
