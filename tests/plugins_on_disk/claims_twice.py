"""One plugin that gives two gates one name."""

from typing import Literal

from moeframe import Gate, hookimpl


class First(Gate):
    """A gate."""

    class Config(Gate.Config):
        type: Literal["twin"] = "twin"

    def forward(self, z, log_snr):
        raise NotImplementedError


class Second(First):
    """A gate that forgot a name of its own."""


@hookimpl
def moeframe_gates():
    return [First, Second]
