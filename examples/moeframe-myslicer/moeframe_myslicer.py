"""A complete third-party plugin: a slicer by the parity of the label."""

from typing import Literal

from moeframe import Slicer, hookimpl


class ParitySlicer(Slicer):
    """Even labels to one expert, odd ones to the next."""

    class Config(Slicer.Config):
        type: Literal["parity"] = "parity"

    def assign(self, examples):
        return examples.labels % 2


@hookimpl
def moeframe_slicers():
    return [ParitySlicer]
