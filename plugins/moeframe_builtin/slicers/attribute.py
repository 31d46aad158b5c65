"""Slices by the attributes that come with the data, such as the hair colours of CelebA."""

import difflib
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import Slicer, State
from moeframe.shapes import SliceIds
from moeframe_builtin.slicers.support.by_feature import Balance
from moeframe_builtin.slicers.support.grouping import balanced_groups

HAIR_COLOURS = (("Black_Hair",), ("Blond_Hair",), ("Brown_Hair",), ("Gray_Hair",))
"""Attribute names as list_attr_celeba.txt spells them."""

Group = Annotated[tuple[str, ...], Field(min_length=1)]


class Attribute(Slicer):
    """Groups of named attributes, one slice each, and a last slice `other`; by default CelebA's hair colours.

    An image belongs to a group when any of its attributes is 1 (absent: 0 or -1). One in no group goes to `other`.
    An attribute is present or absent, so no threshold can balance the sizes: `balance: quantile` puts whole groups
    together instead, largest first to the slice that is smallest so far.
    """

    class Config(Slicer.Config):
        type: Literal["attribute"] = "attribute"
        groups: tuple[Group, ...] = Field(default=HAIR_COLOURS, min_length=1)
        """Attribute names of each group; a last one, `other`, is added."""
        several: Literal["first", "other"] = "first"
        """Where an image in several groups goes: to the first of them as listed, or to `other`."""
        balance: Balance = "natural"
        """natural: a slice per group, however many images it has; quantile: whole groups put together into slices of
        about equal size."""

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """One group per expert but the last, or as many at least; an attribute is in one group only."""
            n_parts = len(self.groups) + 1
            if self.balance == "natural" and n_parts != facts.n_experts:
                instead = ", or `balance: quantile`, which puts groups together" if n_parts > facts.n_experts else ""
                yield (
                    "groups",
                    f"{len(self.groups)} groups and 'other' make {n_parts} slices for {facts.n_experts} "
                    f"experts; use {n_parts} experts or give {facts.n_experts - 1} groups{instead}",
                )
            if self.balance == "quantile" and n_parts < facts.n_experts:
                yield (
                    "groups",
                    f"{len(self.groups)} groups and 'other' are too few for {facts.n_experts} slices; use at most "
                    f"{n_parts} experts or give {facts.n_experts - 1} groups",
                )
            listed = [name for group in self.groups for name in group]
            for name in sorted({name for name in listed if listed.count(name) > 1}):
                yield "groups", f"'{name}' is listed {listed.count(name)} times; list each attribute once"

    config: Config
    _slice_of_group: list[int] | None = None

    def fit(self, train: Examples) -> None:
        """Merge groups if the config says so. Raises DataError for a missing attribute or too few filled groups."""
        counts = self._groups(train).bincount(minlength=len(self.config.groups) + 1).tolist()
        if self.config.balance == "natural":
            assert self.n_slices == len(counts), "Config.conflicts reports this"
            self._slice_of_group = list(range(self.n_slices))
            return
        if sum(count > 0 for count in counts) < self.n_slices:
            sizes = ", ".join(f"{name} {count}" for name, count in zip(self._group_names, counts, strict=True))
            raise DataError(
                f"attribute: {self.n_slices} slices need as many groups with images; the training data has {sizes}; "
                "use fewer experts or other groups"
            )
        together = balanced_groups(counts, self.n_slices)
        slice_of = {group: number for number, groups in enumerate(together) for group in groups}
        self._slice_of_group = [slice_of[group] for group in range(len(counts))]

    def assign(self, examples: Examples) -> SliceIds:
        """The slice of each example's group."""
        return torch.tensor(self._fitted)[self._groups(examples)]

    def _groups(self, examples: Examples) -> Tensor:
        """The group of each example, by the rule for several and none."""
        members = self._memberships(examples)
        other = torch.tensor(len(self.config.groups))
        group = members.long().argmax(dim=1)  # the first of equals
        counts = members.sum(dim=1)
        grouped = counts == 1 if self.config.several == "other" else counts >= 1
        return torch.where(grouped, group, other)

    @property
    def slice_names(self) -> list[str]:
        """The attributes of each slice, and `other`."""
        named = list(zip(self._group_names, self._fitted, strict=True))
        return [" or ".join(name for name, number in named if number == k) for k in range(self.n_slices)]

    def state(self) -> State:
        """Slice number of each group; the last is `other`."""
        return {"slice_of_group": list(self._fitted)}

    def restore(self, state: State) -> None:
        """Restore the slice number of each group."""
        self._slice_of_group = list(state["slice_of_group"])

    @property
    def _fitted(self) -> list[int]:
        assert self._slice_of_group is not None, "fit or restore first"
        return self._slice_of_group

    @property
    def _group_names(self) -> list[str]:
        return [*(" or ".join(group) for group in self.config.groups), "other"]

    def _memberships(self, examples: Examples) -> Tensor:
        """(examples, groups), whether any attribute of the group is 1."""
        return torch.stack(
            [torch.stack([self._present(examples, name) for name in group]).any(dim=0) for group in self.config.groups],
            dim=1,
        )

    @staticmethod
    def _present(examples: Examples, name: str) -> Tensor:
        if not examples.attributes:
            raise DataError(
                f"attribute: the data has no attributes, so no '{name}'; use a dataset that has them, or another slicer"
            )
        if name not in examples.attributes:
            near = difflib.get_close_matches(name, examples.attributes, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise DataError(
                f"attribute: the data has no attribute '{name}'; {hint}it has {', '.join(sorted(examples.attributes))}"
            )
        values = examples.attributes[name]
        wrong = ~torch.isin(values, values.new_tensor([-1, 0, 1]))
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise DataError(
                f"attribute: '{name}' of image {at} is {float(values[at]):g}; "
                "it must be 1 where present and 0 or -1 where absent"
            )
        return values > 0
