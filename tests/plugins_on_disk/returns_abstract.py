"""A gate without its one method."""

from typing import Literal

from moeframe import Gate, hookimpl


class Unfinished(Gate):
    """A gate."""

    class Config(Gate.Config):
        type: Literal["unfinished"] = "unfinished"


@hookimpl
def moeframe_gates():
    return [Unfinished]
