"""95 % intervals over seeds and within a run; where none can be given, the reason.

How often each interval holds the truth is measured by benchmarks/coverage.py: results/evaluation/coverage.json.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moeframe.errors import NonFiniteError

IntArray: TypeAlias = NDArray[np.int64]
"""Indices of resampled images, with repetition."""

BootstrapMethod: TypeAlias = Literal["percentile", "BCa", "basic"]


ROUNDING = 1e-14
"""Relative error of a sum of floats, below which values are the same."""

ONE_SEED = "none: one seed"
"""The interval method of a value that was measured on one seed only."""


STUDENT_FROM = 30
"""Images from which Student's interval of a skewed per-image value (skewness up to 1) covers 95 ± 1.5 %."""

NORMAL_FROM = 100
"""Images from which the normal interval does so too."""

BOOTSTRAP_FROM: Mapping[BootstrapMethod, int] = {"percentile": 100, "BCa": 100, "basic": 1000}
"""Images from which bootstrap intervals do so: of a mean, and with "basic" of a Fréchet distance too."""

MEDIAN_FROM = 6
"""Values from which smallest to largest holds the median in 95 % of cases (1 - 2 / 2⁶ = 0.969)."""

PROPORTION_FROM = 200
"""Images from which Wilson's interval covers 95 ± 1.5 %, where 20 or more of each outcome are expected."""


RESAMPLES = 999
"""Fewer bootstrap resamples make the ends noisy and the interval too short."""


@dataclass(frozen=True)
class Interval:
    """The ends of a 95 % interval and its method; or no ends, and `method` says why."""

    ends: tuple[float, float] | None
    method: str


@dataclass(frozen=True)
class Summary:
    """A value over seeds. `sd` and `interval` are None where fewer than two seeds measured it."""

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
    """Sample standard deviation (n - 1), or None for one value; values that differ by their rounding have none.

    >>> sd([1.0, 3.0]), sd([0.1 + 0.2, 0.3])
    (1.4142135623730951, 0.0)
    """
    if len(values) < 2:
        return None
    if max(values) - min(values) <= ROUNDING * max(map(abs, values)):
        return 0.0
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
    """Mean, sd and 95 % t-interval of one value per seed."""
    n = len(values)
    method = f"95 % t-interval over {n} seeds" if n > 1 else ONE_SEED
    return Summary(mean(values), sd(values), t_interval(values), method, n)


def normal_interval(mean: float, standard_error: float, n: int) -> Interval:
    """Interval of a mean over n images: ± 1.96 standard errors, below 100 images ± t(n - 1), below 30 none.

    Images must be independent. The more skewed the values, the more it under-covers: see the benchmark.
    """
    if n < STUDENT_FROM:
        return _none(f"{n} images; an interval of their mean needs {STUDENT_FROM}")
    from scipy import stats

    normal = n >= NORMAL_FROM
    half = standard_error * float(stats.norm.ppf(0.975) if normal else stats.t.ppf(0.975, n - 1))
    method = "95 %, normal" if normal else f"95 %, Student's t({n - 1})"
    return Interval((mean - half, mean + half), f"{method}, standard error over {n} images")


def skewed_interval(values: Sequence[float], seed: int) -> Interval:
    """Interval of the mean of a per-image value that may be skewed: BCa bootstrap, below 100 images Student's.

    >>> skewed_interval([0.0, 1.0] * 10, seed=0).method
    'none: 20 images; an interval of their mean needs 30'
    """
    if len(values) < BOOTSTRAP_FROM["BCa"]:
        return normal_interval(mean(values), (sd(values) or 0.0) / math.sqrt(len(values)), len(values))
    known = np.array(values)
    return bootstrap_interval(len(known), lambda index: float(known[index].mean()), seed, "BCa")


def proportion_interval(successes: int, n: int) -> Interval:
    """Wilson's interval of a rate (an accuracy, say). Under-covers where fewer than 20 of an outcome are expected.

    >>> low, high = proportion_interval(180, 200).ends
    >>> round(low, 3), round(high, 3)
    (0.851, 0.934)
    """
    if n < PROPORTION_FROM:
        return _none(f"{n} images; an interval of a rate needs {PROPORTION_FROM}")
    from scipy import stats

    ends = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Interval((float(ends.low), float(ends.high)), f"95 %, Wilson's, {n} images")


def median_interval(values: Sequence[float]) -> Interval:
    """Interval of the median from order statistics, interpolated (Hettmansperger and Sheather, 1986).

    Without interpolation it covers 96.9 to 99.2 % at 6 to 8 values; with it, 95 % for any usual distribution. Values
    must be independent: slow drifts of a machine's speed are not in the interval.
    """
    n = len(values)
    if n < MEDIAN_FROM:
        return _none(f"{n} values; an interval of their median needs {MEDIAN_FROM}")
    require_finite_values(values, "a value")
    from scipy import stats

    rank = int(stats.binom.ppf(0.025, n, 0.5))  # the innermost pair of order statistics that covers 95 % or more
    wider, narrower = (1 - 2 * float(stats.binom.cdf(k, n, 0.5)) for k in (rank - 1, rank))
    excess = (wider - 0.95) / (wider - narrower)
    inward = (n - rank) * excess / (rank + (n - 2 * rank) * excess)
    ordered = sorted(values)
    low, high = (
        (1 - inward) * outer + inward * inner
        for outer, inner in ((ordered[rank - 1], ordered[rank]), (ordered[n - rank], ordered[n - rank - 1]))
    )
    return Interval((low, high), f"95 %, interpolated order statistics of {n} values")


def bootstrap_interval(
    n: int,
    statistic: Callable[[IntArray], float],
    seed: int,
    method: BootstrapMethod = "percentile",
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a statistic over n images, by resampling them; `statistic` gets the n resampled indices.

    - "percentile" and "BCa" from 100 images, for means and the like. BCa takes n evaluations more.
    - "basic" from 1,000 images, for a statistic with a bias of order 1/n. A Fréchet distance is one: each resample adds
      the bias again, so that percentile intervals are above the truth and may always miss it. The basic interval is
      about the distance at infinite n, so it is below the estimate. It needs 100 images or more per feature.
    - With fewer images all of them are too short, the more so the fewer: no interval. Over seeds use `t_interval`.

    Images must be independent. Raises NonFiniteError when the statistic of a resample is not finite.

    >>> losses = np.linspace(2.0, 4.0, 200)
    >>> low, high = bootstrap_interval(200, lambda index: float(losses[index].mean()), seed=0).ends
    >>> low < 3.0 < high
    True
    """
    assert resamples >= RESAMPLES, f"{resamples} resamples; the ends need {RESAMPLES}"
    if n < BOOTSTRAP_FROM[method]:
        return _none(f"{n} images; a {method} bootstrap interval needs {BOOTSTRAP_FROM[method]}")
    from scipy import stats

    def finite_statistic(index: IntArray) -> float:
        value = float(statistic(index))
        require_finite_values([value], "the statistic of a resample")
        return value

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # a constant statistic: answered below
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(n),),
            finite_statistic,
            vectorized=False,
            n_resamples=resamples,
            method=method,
            random_state=np.random.default_rng(seed),
        )
    if np.ptp(result.bootstrap_distribution) == 0:
        return _none("the statistic is the same in every resample")
    ends = result.confidence_interval
    return Interval((float(ends.low), float(ends.high)), f"95 %, {method} bootstrap, {resamples} resamples, {n} images")


def _none(reason: str) -> Interval:
    return Interval(None, f"none: {reason}")


def require_finite_values(values: Sequence[float], what: str) -> None:
    """Raise NonFiniteError for the first NaN or infinity."""
    for value in values:
        if not math.isfinite(value):
            raise NonFiniteError(f"{what} is {value}: no interval and no comparison is made of it")
