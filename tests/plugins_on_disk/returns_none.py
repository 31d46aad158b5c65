"""Forgot to return."""

from moeframe import hookimpl


@hookimpl
def moeframe_gates():
    pass
