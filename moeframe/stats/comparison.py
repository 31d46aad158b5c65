"""Comparisons of variants paired by seed, corrected for their number, and gains relative to a baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from moeframe.errors import InputError, NonFiniteError
from moeframe.interfaces.metric import Better
from moeframe.stats.intervals import mean, require_finite_values, sd, t_interval

Verdict: TypeAlias = Literal["better", "worse", "no difference shown", "underpowered"]

PairedValues: TypeAlias = Sequence[float | None]
"""One value per seed, in the same order of seeds for all variants; None where a seed has none."""

SIGNIFICANCE = 0.05
"""Adjusted p-values below this are significant."""

COMPARED_FROM = 6
"""Seeds from which the exact sign-flip test can fall below 0.05 (2 / 2⁶ = 0.031)."""

GAIN_FROM = 3
"""Seeds from which the interval of a relative gain is given."""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two variants by seed. Differences are the variant minus the other."""

    better: Better
    n: int
    """Seeds that both measured."""
    dropped: int
    """Seeds that only one of them, or neither, measured."""
    mean_difference: float
    sd: float | None
    interval: tuple[float, float] | None
    """Student's interval of the mean difference, for this row alone: Holm's correction does not widen it."""
    p_value: float | None
    """Paired t-test, two-sided; where all differences are equal, `p_sign_flip`. None for one seed."""
    p_sign_flip: float
    """Sign-flip test of the mean difference, two-sided: exact up to 16 seeds, 65,536 random flips beyond."""
    p_adjusted: float | None
    """`p_value` after Holm's correction over the rows of its table; None where underpowered."""
    verdict: Verdict


@dataclass(frozen=True)
class RelativeGain:
    """Change of the mean as a fraction of the baseline's mean, positive where better."""

    value: float | None
    """None where the baseline's mean is not positive."""
    interval: tuple[float, float] | None
    method: str
    n: int
    dropped: int


def compare_paired(a: PairedValues, b: PairedValues, better: Better) -> Comparison:
    """Is a better than b? Paired t-test; under six common seeds the verdict is always "underpowered".

    The t-test decides, because after Holm's correction over 8 rows the sign-flip test can show nothing below 9 seeds.
    It calls identical variants different too often where a seed yields one of two values: there read `p_sign_flip`.
    Raises InputError where no seed has both values, NonFiniteError for a NaN.
    """
    pairs = _pairs(a, b)
    differences = [x - y for x, y in pairs]
    n, centre, spread = len(pairs), mean(differences), sd(differences)
    p_sign_flip = _p_sign_flip(differences)
    p_value = None
    if spread is not None:
        # rounding makes equal differences unequal; that is not a spread
        equal = spread <= 1e-12 * max(abs(value) for pair in pairs for value in pair)
        p_value = p_sign_flip if equal else _p_student(centre * math.sqrt(n) / spread, n - 1)
    alone = Comparison(
        better=better,
        n=n,
        dropped=len(a) - n,
        mean_difference=centre,
        sd=spread,
        interval=t_interval(differences),
        p_value=p_value,
        p_sign_flip=p_sign_flip,
        p_adjusted=None,
        verdict="underpowered",
    )
    return adjust({"alone": alone})["alone"]


def compare_all(rows: Mapping[str, PairedValues], baseline: str, better: Better) -> dict[str, Comparison]:
    """Every other row against the row `baseline`, with Holm's correction over them. Raises as `compare_paired`."""
    if baseline not in rows:
        raise InputError(f"the baseline {baseline!r} is not among the rows: {', '.join(rows)}")
    comparisons = {}
    for name, values in rows.items():
        if name != baseline:
            try:
                comparisons[name] = compare_paired(values, rows[baseline], better)
            except (InputError, NonFiniteError) as error:
                raise type(error)(f"{name} against {baseline}: {error}") from error
    return adjust(comparisons)


def adjust(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The comparisons of one table with Holm's correction over those that are not underpowered, and their verdicts."""
    raw = {name: one.p_value for name, one in comparisons.items() if one.n >= COMPARED_FROM and one.p_value is not None}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return {
        name: replace(one, p_adjusted=adjusted[name], verdict=_verdict(one, adjusted[name]))
        if name in adjusted
        else one
        for name, one in comparisons.items()
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979): the family-wise error is held under any dependence of the tests.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def relative_gain(values: PairedValues, baseline: PairedValues, better: Better) -> RelativeGain:
    """Gain of the mean over the baseline's mean, with Fieller's paired interval (1954).

    The ratio of means is the one that a table of means shows; Fieller's interval of it is exact for normal pairs, where
    the mean of ratios per seed would answer another question. None where the baseline's own interval reaches zero, or a
    mean is not positive, as that of an unbiased KID can be.
    Raises InputError where no seed has both values, NonFiniteError for a NaN.
    """
    pairs = _pairs(values, baseline)
    n, dropped = len(pairs), len(values) - len(pairs)
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    top, bottom = mean(ours), mean(theirs)
    for whose, centre in (("the baseline's", bottom), ("its", top)):
        if centre <= 0:
            return RelativeGain(None, None, f"none: {whose} mean is {centre:.4g}, not positive", n, dropped)
    value = _gain(top / bottom, better)
    if n < GAIN_FROM:
        reason = f"none: {n} common seeds; the interval of a relative gain needs {GAIN_FROM}"
        return RelativeGain(value, None, reason, n, dropped)
    from scipy import stats

    # the ratios r for which the t-test of mean(ours - r theirs) = 0 is not rejected: a quadratic inequality in r
    covariance = float(stats.t.ppf(0.975, n - 1)) ** 2 / n * np.cov(ours, theirs)
    square = bottom**2 - covariance[1, 1]
    if square <= 0:
        reason = "none: the baseline's mean is not distinguishable from zero"
        return RelativeGain(None, None, reason, n, dropped)
    middle = top * bottom - covariance[0, 1]
    root = math.sqrt(max(0.0, middle**2 - square * (top**2 - covariance[0, 0])))
    low, high = sorted(_gain(float(end), better) for end in ((middle - root) / square, (middle + root) / square))
    method = f"95 %, Fieller's interval of the ratio of means, paired over {n} seeds"
    return RelativeGain(value, (low, high), method, n, dropped)


def _gain(ratio: float, better: Better) -> float:
    return 1 - ratio if better == "lower" else ratio - 1


def _pairs(a: PairedValues, b: PairedValues) -> list[tuple[float, float]]:
    """The pairs of values of the seeds that both sides have."""
    if len(a) != len(b):
        raise InputError(f"{len(a)} values against {len(b)}: list the same seeds for both, None where one lacks it")
    for side in (a, b):
        require_finite_values([value for value in side if value is not None], "the value of a seed")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        raise InputError("no seed was measured on both sides; run both with the same seeds")
    return pairs


def _p_student(t: float, degrees: int) -> float:
    from scipy import stats

    return float(2 * stats.t.sf(abs(t), degrees))


def _p_sign_flip(differences: Sequence[float]) -> float:
    """Under the null hypothesis a and b are exchangeable within a seed, so every sign pattern is as likely."""
    if len(differences) == 1:
        return 1.0
    from scipy import stats

    test = stats.permutation_test(
        (np.array(differences),),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        random_state=np.random.default_rng(0),
    )
    return float(test.pvalue)


def _verdict(comparison: Comparison, p_adjusted: float) -> Verdict:
    if p_adjusted >= SIGNIFICANCE:
        return "no difference shown"
    return "better" if (comparison.mean_difference < 0) == (comparison.better == "lower") else "worse"
