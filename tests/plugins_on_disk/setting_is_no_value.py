"""A gate with a setting that no YAML file can hold."""

from collections.abc import Callable
from typing import Literal

from moeframe import Gate, hookimpl


class Computed(Gate):
    """A gate."""

    class Config(Gate.Config):
        type: Literal["computed"] = "computed"
        scale: Callable[[float], float] = abs

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [Computed]
