"""A hook name that moeframe does not have."""

from moeframe import hookimpl


@hookimpl
def moeframe_gate():
    return []
