"""Not a class."""

from moeframe import hookimpl


@hookimpl
def moeframe_gates():
    return [42]
