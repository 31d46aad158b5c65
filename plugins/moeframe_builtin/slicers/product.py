"""Slices by several slicers at once: every combination of their slices."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny

from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import Slicer, State
from moeframe.randomness import Streams, derive_key
from moeframe.shapes import SliceIds

Count = Annotated[int, Field(ge=1)]


class Product(Slicer):
    """Every combination of the slices of several slicers, such as light times colour; one expert per combination.

    The slice is a number in mixed radix, whose digits are the slices of the parts, the first the most significant:
    with counts n0, n1, n2 it is (s0 n1 + s1) n2 + s2. Each part cuts all images on its own, so the combinations are of
    equal size only where the parts are independent.
    """

    PARTS: ClassVar[Mapping[str, str]] = {"slicers": "slicers"}

    class Config(Slicer.Config):
        type: Literal["product"] = "product"
        slicers: tuple[SerializeAsAny[Slicer.Config], ...] = Field(min_length=2)
        counts: tuple[Count, ...]
        """Into how many slices each of the slicers cuts; their product is the number of experts."""

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """One count per slicer, whose product is the number of experts; each slicer must suit its count."""
            if len(self.counts) != len(self.slicers):
                yield (
                    "counts",
                    f"{len(self.counts)} counts for {len(self.slicers)} slicers; give one count per slicer, "
                    f"whose product is the number of experts, {facts.n_experts}",
                )
                return
            made = math.prod(self.counts)
            if made != facts.n_experts:
                yield (
                    "counts",
                    f"{' x '.join(map(str, self.counts))} = {made} slices for {facts.n_experts} experts; "
                    f"use {made} experts or counts whose product is {facts.n_experts}",
                )
            for i, (part, count) in enumerate(zip(self.slicers, self.counts, strict=True)):
                for key, message in part.conflicts(SpecFacts(n_experts=count)):
                    place = f"slicer {i} ('{part.type}', for which its count {count} is the number of experts), {key}"
                    yield "slicers", f"{place}: {message}"

    config: Config

    def __init__(self, config: Config, *, n_slices: int, streams: Streams):
        super().__init__(config, n_slices=n_slices, streams=streams)
        assert math.prod(config.counts) == n_slices, "Config.conflicts reports this"
        self._parts = [
            _built(part, count, Streams(derive_key(streams.seed, "product slicer", i)))
            for i, (part, count) in enumerate(zip(config.slicers, config.counts, strict=True))
        ]

    def fit(self, train: Examples) -> None:
        """Fit each part. Raises what they raise."""
        for part in self._parts:
            part.fit(train)

    def assign(self, examples: Examples) -> SliceIds:
        """The combination of the parts' slices, in mixed radix."""
        ids = torch.zeros(len(examples), dtype=torch.long)
        for part in self._parts:
            ids = ids * part.n_slices + part.assign(examples)
        return ids

    @property
    def slice_names(self) -> list[str]:
        """The names of the parts' slices in each combination."""
        return [" & ".join(names) for names in itertools.product(*(part.slice_names for part in self._parts))]

    def state(self) -> State:
        """The states of the parts; each key starts with the number of its part."""
        return {f"{i}/{key}": values for i, part in enumerate(self._parts) for key, values in part.state().items()}

    def restore(self, state: State) -> None:
        """Restore the state of each part."""
        for i, part in enumerate(self._parts):
            own = f"{i}/"
            part.restore({key.removeprefix(own): values for key, values in state.items() if key.startswith(own)})


def _built(config: Slicer.Config, n_slices: int, streams: Streams) -> Slicer:
    component = config.component
    assert issubclass(component, Slicer)
    assert component is not Slicer, "a part is the Config of its own slicer; the engine reads it so from a spec"
    return component(config, n_slices=n_slices, streams=streams)
