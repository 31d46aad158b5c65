"""Experts that load checkpoints of other codebases; needs the extra `pretrained`."""

from moeframe.hookspecs import hookimpl
from moeframe.interfaces.expert import Expert

MOEFRAME_API = 1


@hookimpl
def moeframe_experts() -> list[type[Expert]]:
    """Experts by the family of their checkpoint."""
    return []
