"""A mutation: what changes where, its effect on the numbers, and the tests that must fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """`old`, which occurs once in `file`, becomes `new`."""

    name: str
    effect: str
    """What the numbers would be with it."""
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """pytest's node ids of the smallest set that should fail."""
