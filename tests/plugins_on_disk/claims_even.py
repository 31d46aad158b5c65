"""Another author's gate of the same name as good_gate's."""

from typing import Literal

from moeframe import Gate, hookimpl


class OtherGate(Gate):
    """A gate."""

    class Config(Gate.Config):
        type: Literal["even"] = "even"

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [OtherGate]
