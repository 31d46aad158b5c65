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
from moeframe.interfaces.slicer import Slicer
from moeframe.shapes import SliceIds

HAIR_COLOURS = (("Black_Hair",), ("Blond_Hair",), ("Brown_Hair",), ("Gray_Hair",))
"""Attribute names as list_attr_celeba.txt spells them."""

Group = Annotated[tuple[str, ...], Field(min_length=1)]


class Attribute(Slicer):
    """Groups of named attributes, one slice each, and a last slice `other`; by default CelebA's hair colours.

    An image belongs to a group when any of its attributes is 1 (absent: 0 or -1). One in no group goes to `other`.
    """

    class Config(Slicer.Config):
        type: Literal["attribute"] = "attribute"
        groups: tuple[Group, ...] = Field(default=HAIR_COLOURS, min_length=1)
        """Attribute names of each slice but the last, which is `other`."""
        several: Literal["first", "other"] = "first"
        """Where an image in several groups goes: to the first of them as listed, or to `other`."""

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """One group per expert but the last; an attribute is in one group only."""
            if len(self.groups) + 1 != facts.n_experts:
                yield (
                    "groups",
                    f"{len(self.groups)} groups and 'other' make {len(self.groups) + 1} slices for {facts.n_experts} "
                    f"experts; use {len(self.groups) + 1} experts or give {facts.n_experts - 1} groups",
                )
            listed = [name for group in self.groups for name in group]
            for name in sorted({name for name in listed if listed.count(name) > 1}):
                yield "groups", f"'{name}' is listed {listed.count(name)} times; list each attribute once"

    config: Config

    def fit(self, train: Examples) -> None:
        """Nothing is learned; raises DataError where the training data lacks an attribute of the groups."""
        assert self.n_slices == len(self.config.groups) + 1, "Config.conflicts reports this"
        self._memberships(train)

    def assign(self, examples: Examples) -> SliceIds:
        """The group of each example, by the rule for several and none."""
        members = self._memberships(examples)
        other = torch.tensor(len(self.config.groups))
        group = members.long().argmax(dim=1)  # the first of equals
        counts = members.sum(dim=1)
        grouped = counts == 1 if self.config.several == "other" else counts >= 1
        return torch.where(grouped, group, other)

    @property
    def slice_names(self) -> list[str]:
        """The attributes of each group, and `other`."""
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
