"""Means, spreads and 95 % intervals over seeds. With one seed there is no interval, and the record says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ONE_SEED = "none: one seed"
"""The interval method of a figure that was measured on one seed only."""


@dataclass(frozen=True)
class Summary:
    """A figure over seeds. `sd` and `interval` are None where fewer than two seeds measured it."""

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    method: str
    n: int


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, summed exactly.

    >>> mean([1.0, 2.0, 6.0])
    3.0
    """
    assert values, "the mean of nothing"
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1), or None for one value.

    >>> sd([1.0, 3.0])
    1.4142135623730951
    """
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean, mean ± t(n - 1) sd / √n, or None for one value."""
    spread = sd(values)
    if spread is None:
        return None
    from scipy import stats

    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    centre = mean(values)
    return centre - half, centre + half


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sd and 95 % t-interval of one figure per seed."""
    n = len(values)
    method = f"95 % t-interval over {n} seeds" if n > 1 else ONE_SEED
    return Summary(mean(values), sd(values), t_interval(values), method, n)
