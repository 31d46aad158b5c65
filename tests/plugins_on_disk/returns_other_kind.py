"""A slicer from the hook of the gates."""

from typing import Literal

from moeframe import Slicer, hookimpl


class Lost(Slicer):
    """A slicer."""

    class Config(Slicer.Config):
        type: Literal["lost"] = "lost"

    def assign(self, examples):
        return examples.labels


@hookimpl
def moeframe_gates():
    return [Lost]
