"""Expects an argument that no hook passes."""

from moeframe import hookimpl


@hookimpl
def moeframe_gates(registry):
    return []
