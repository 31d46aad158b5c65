"""A gate that any name would select."""

from moeframe import Gate, hookimpl


class Anything(Gate):
    """A gate."""

    class Config(Gate.Config):
        type: str = "anything"

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [Anything]
