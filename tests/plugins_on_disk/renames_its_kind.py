"""A gate that calls its kind something else."""

from typing import Literal

from moeframe import Gate, hookimpl


class Odd(Gate):
    """A gate."""

    KIND = "routers"

    class Config(Gate.Config):
        type: Literal["odd"] = "odd"

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [Odd]
