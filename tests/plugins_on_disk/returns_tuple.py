"""Not a list."""

from moeframe import hookimpl


@hookimpl
def moeframe_gates():
    return ()
