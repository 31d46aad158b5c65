"""Made for a later moeframe."""

from moeframe import hookimpl

MOEFRAME_API = 2


@hookimpl
def moeframe_gates():
    return []
