"""Fails when it is asked."""

from moeframe import hookimpl


@hookimpl
def moeframe_gates():
    return [{}["gate"]]
