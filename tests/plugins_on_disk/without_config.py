"""A gate that nothing selects: it has no Config of its own."""

from moeframe import Gate, hookimpl


class Nameless(Gate):
    """A gate."""

    def forward(self, z, log_snr):
        raise NotImplementedError


@hookimpl
def moeframe_gates():
    return [Nameless]
