"""Bands of log-SNR between increasing thresholds: shared by gates that depend on the noise level alone."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from moeframe.interfaces.component import SpecFacts


def increasing(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds. Raises ValueError where they do not increase or are not finite."""
    values = tuple(thresholds)
    if not all(map(math.isfinite, values)) or any(high <= low for low, high in pairwise(values)):
        raise ValueError(f"thresholds must increase, from noisy to clean, not {list(values)}")
    return values


def outside(key: str, thresholds: Sequence[float], facts: SpecFacts) -> Iterator[tuple[str, str]]:
    """A conflict for each threshold that the schedule never reaches."""
    low, high = facts.log_snr_range
    for value in thresholds:
        if not low < value < high:
            yield (
                key,
                f"{value:g} is outside the schedule's log-SNR range {low:g} .. {high:g}, so it divides nothing; "
                "choose a value within, or widen the schedule",
            )
