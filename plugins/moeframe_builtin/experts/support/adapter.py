"""Experts that are small changes of a trunk.

At the start they change nothing, so a mixture upcycled from one pretrained expert begins as that expert.
"""

from collections.abc import Iterator

from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.expert import Expert


class AdapterConfig(Expert.Config):
    """Settings of an adapter: it needs a trunk."""

    def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
        """Report that the spec has no trunk to adapt."""
        if not facts.has_trunk:
            yield (
                "type",
                f"'{self.type}' adapts a trunk, but the spec has none; add a section 'trunk', for example  "
                "trunk: {type: unet}",
            )
