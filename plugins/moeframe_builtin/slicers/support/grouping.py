"""Kinds of images, such as classes or hair colours, put together into as many groups as there are slices."""

from collections.abc import Sequence
from itertools import pairwise


def balanced_groups(counts: Sequence[int], n_groups: int) -> list[list[int]]:
    """Each kind, largest first, joins the group that is smallest so far; of equals the lowest number goes first.

    >>> balanced_groups([5, 9, 5, 1], 2)
    [[1, 3], [0, 2]]
    """
    groups: list[list[int]] = [[] for _ in range(n_groups)]
    sizes = [0] * n_groups
    for number in sorted(range(len(counts)), key=lambda number: (-counts[number], number)):
        smallest = min(range(n_groups), key=lambda group: (sizes[group], group))
        groups[smallest].append(number)
        sizes[smallest] += counts[number]
    return groups


def natural_groups(present: Sequence[int], n_groups: int) -> list[list[int]]:
    """The kinds in their order, cut into runs of about equal length, however many images they hold.

    >>> natural_groups([0, 1, 2, 3, 4], 2)
    [[0, 1], [2, 3, 4]]
    """
    borders = [len(present) * group // n_groups for group in range(n_groups + 1)]
    return [list(present[start:end]) for start, end in pairwise(borders)]
