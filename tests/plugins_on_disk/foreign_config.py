"""A gate whose settings are not a moeframe Config."""

from dataclasses import dataclass

from moeframe import Gate, hookimpl


class Foreign(Gate):
    """A gate."""

    @dataclass
    class Config:
        type: str = "foreign"

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [Foreign]
