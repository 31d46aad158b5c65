"""A good plugin that declares no API version: a slicer."""

from typing import Literal

from moeframe import Slicer, hookimpl


class ThirdsSlicer(Slicer):
    """By the label's remainder on division by three."""

    class Config(Slicer.Config):
        type: Literal["thirds"] = "thirds"

    def assign(self, examples):
        return examples.labels % 3


@hookimpl
def moeframe_slicers():
    return [ThirdsSlicer]
