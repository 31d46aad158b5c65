"""How often nominal 95 % intervals hold the truth, and how often identical variants are called different.

    python benchmarks/coverage.py        # three minutes of one core; writes results/evaluation/coverage.json

Every interval of moeframe.stats.intervals must cover 95 ± 1.5 % at the smallest n at which it is offered. The table
also shows smaller n, where it is not offered, and why.
"""

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import stats

from moeframe.stats.comparison import (
    adjust,
    compare_all,
    compare_paired,
    holm,
    relative_gain,
)
from moeframe.stats.intervals import (
    BOOTSTRAP_FROM,
    RESAMPLES,
    BootstrapMethod,
    median_interval,
    normal_interval,
    proportion_interval,
    t_interval,
)

OUT = Path(__file__).resolve().parent.parent / "results/evaluation/coverage.json"
Values: TypeAlias = NDArray[np.float64]
Ends: TypeAlias = tuple[float, float] | None


@dataclass(frozen=True)
class Population:
    """What is drawn, with the truth that an interval should hold."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Values]
    mean: float
    median: float


NORMAL = Population("normal", lambda rng, shape: rng.normal(size=shape), 0.0, 0.0)
GAMMA = Population(
    "gamma of shape 4 (skewness 1, as bits/dim per image)",
    lambda rng, shape: rng.gamma(4.0, size=shape),
    4.0,
    float(stats.gamma.median(4)),
)
EXPONENTIAL = Population("exponential (skewness 2)", lambda rng, shape: rng.exponential(size=shape), 1.0, np.log(2.0))
LOGNORMAL = Population("log-normal (as latencies)", lambda rng, shape: rng.lognormal(size=shape), np.exp(0.5), 1.0)
HEAVY_TAILED = Population("Student's t(3), heavy tails", lambda rng, shape: rng.standard_t(3, size=shape), 0.0, 0.0)
ROUNDED = Population("normal, rounded to its sd", lambda rng, shape: np.round(rng.normal(size=shape)), 0.0, 0.0)
FAILING = Population("0 or 1: half of the seeds fail", lambda rng, shape: np.round(rng.random(shape)), 0.5, 0.5)


@dataclass(frozen=True)
class Coverage:
    """How often one kind of interval held the truth. Where `offered`, `met` has to be true."""

    interval: str
    n: int
    data: str
    offered: bool
    simulations: int
    """Intervals looked at; 0 where the coverage is computed exactly."""
    coverage: float
    monte_carlo_error: float
    """One standard error of `coverage`."""
    met: bool
    """95 ± 1.5 %."""
    refused: float = 0.0
    """Share of the simulations in which no interval was given (they do not count as covered, nor as missed)."""


def coverage_of(interval: str, n: int, data: str, offered: bool, held: list[bool | None]) -> Coverage:
    """The figure from one answer per simulation: held, missed, or None for refused."""
    given = [one for one in held if one is not None]
    rate = sum(given) / len(given)
    error = (rate * (1 - rate) / len(given)) ** 0.5
    refused = 1 - len(given) / len(held)
    return Coverage(
        interval, n, data, offered, len(given), round(rate, 4), round(error, 4), within(rate), round(refused, 4)
    )


def within(rate: float) -> bool:
    """95 ± 1.5 %."""
    return abs(rate - 0.95) <= 0.015


def holds(ends: Ends, truth: float) -> bool | None:
    return None if ends is None else bool(ends[0] <= truth <= ends[1])


def seeds(n: int, simulations: int) -> Coverage:
    """Student's interval over n seeds."""
    rows = np.random.default_rng(n).normal(size=(simulations, n)).tolist()
    return coverage_of(
        "t-interval over seeds", n, NORMAL.name, True, [holds(t_interval(row), NORMAL.mean) for row in rows]
    )


def image_means(n: int, data: Population, required: bool, simulations: int) -> Coverage:
    """The interval of a mean over n independent images."""
    x = data.draw(np.random.default_rng(n), (simulations, n))
    errors = x.std(1, ddof=1) / n**0.5
    intervals = [normal_interval(*pair, n).ends for pair in zip(x.mean(1).tolist(), errors.tolist(), strict=True)]
    kind = "Student's" if n < 100 else "normal"
    return coverage_of(
        f"{kind} of a mean over images", n, data.name, required, [holds(one, data.mean) for one in intervals]
    )


def naive_image_means(n: int, data: Population, simulations: int) -> Coverage:
    """What `normal_interval` refuses: ± 1.96 standard errors at any n."""
    x = data.draw(np.random.default_rng(n), (simulations, n))
    held = np.abs(x.mean(1) - data.mean) <= 1.96 * x.std(1, ddof=1) / n**0.5
    return coverage_of("mean over images ± 1.96 standard errors", n, data.name, False, held.tolist())


def medians(n: int, data: Population, simulations: int) -> Coverage:
    """The interpolated order statistics of n values."""
    rows = data.draw(np.random.default_rng(n), (simulations, n)).tolist()
    return coverage_of(
        "order statistics of the median",
        n,
        data.name,
        True,
        [holds(median_interval(row).ends, data.median) for row in rows],
    )


def proportions(n: int, expected: int) -> Coverage:
    """Wilson's interval, exactly: the least favourable of the rates with `expected` or more of each outcome."""
    counts = np.arange(n + 1)
    ends = np.array([proportion_interval(int(count), n).ends for count in counts])
    rates = np.linspace(expected / n, 0.5, 400)
    inside = (ends[:, 0] <= rates[:, None]) & (rates[:, None] <= ends[:, 1])
    covered = (stats.binom.pmf(counts, n, rates[:, None]) * inside).sum(1)
    worst = float(covered[np.argmax(np.abs(covered - 0.95))])
    data = f"worst of 400 rates from {expected / n:g} to 0.5 ({expected} or more expected of each outcome)"
    return Coverage("Wilson's of a rate", n, data, expected >= 20, 0, round(worst, 4), 0.0, within(worst))


def gains(n: int, variation: float, correlation: float, simulations: int) -> Coverage:
    """Fieller's interval; the truth is a gain of 20 %, `variation` the sd of both sides over the baseline's mean."""
    rng = np.random.default_rng(n)
    z = rng.normal(size=(2, simulations, n))
    baseline = 1 + variation * z[0]
    ours = 0.8 + variation * (correlation * z[0] + (1 - correlation**2) ** 0.5 * z[1])
    intervals = [relative_gain(*pair, "lower").interval for pair in zip(ours.tolist(), baseline.tolist(), strict=True)]
    data = f"normal, sd {variation:.0%} of the baseline, correlation {correlation:g} within a seed"
    return coverage_of("Fieller's of a relative gain", n, data, True, [holds(one, 0.2) for one in intervals])


def bootstrap_means(n: int, data: Population, required: bool, simulations: int) -> Iterator[Coverage]:
    """All bootstrap intervals of a mean; a few simulations at a time share their resamples, as in one scipy call."""
    group = 4000 // n
    held: dict[BootstrapMethod, list[bool | None]] = {"percentile": [], "BCa": [], "basic": []}
    for seed in range(simulations // group):
        x = data.draw(np.random.default_rng([n, seed]), (group, n))
        drawn = None
        for method, answers in held.items():
            drawn = stats.bootstrap(
                (x,),
                np.mean,
                axis=-1,
                method=method,
                n_resamples=0 if drawn else RESAMPLES,
                bootstrap_result=drawn,
                random_state=np.random.default_rng(seed),
            )
            ends = drawn.confidence_interval
            answers += ((ends.low <= data.mean) & (data.mean <= ends.high)).tolist()
    for method, answers in held.items():
        offered = required and n >= BOOTSTRAP_FROM[method]
        yield coverage_of(f"{method} bootstrap of a mean", n, data.name, offered, answers)


def bootstrap_frechet(n: int, features: int, simulations: int) -> Iterator[Coverage]:
    """Bootstrap intervals of a Fréchet distance to a known Gaussian, features Gaussian; the truth is at infinite n."""
    shift, scale = np.full(features, 0.5 / features**0.5), np.linspace(0.8, 1.1, features)
    upper = np.triu_indices(features)
    truth = float(_frechet_to_standard_normal(shift, np.diag(scale**2)))
    held: dict[BootstrapMethod, list[bool | None]] = {"percentile": [], "basic": []}
    for seed in range(simulations):
        x = shift + scale * np.random.default_rng([n, seed]).normal(size=(n, features))
        moments = np.concatenate([x, x[:, upper[0]] * x[:, upper[1]]], 1)

        def distance(index: NDArray[np.int64], axis: int, moments: Values = moments) -> Values:
            del axis
            index = np.atleast_2d(index)
            flat = index + n * np.arange(len(index))[:, None]
            means = np.bincount(flat.ravel(), minlength=n * len(index)).reshape(-1, n) @ moments / n
            first, second = means[:, :features], np.empty((len(index), features, features))
            second[:, upper[0], upper[1]] = second[:, upper[1], upper[0]] = means[:, features:]
            covariance = (second - first[:, :, None] * first[:, None, :]) * n / (n - 1)
            return np.squeeze(_frechet_to_standard_normal(first, covariance))

        drawn = None
        for method, answers in held.items():
            drawn = stats.bootstrap(
                (np.arange(n),),
                distance,
                vectorized=True,
                method=method,
                n_resamples=0 if drawn else RESAMPLES,
                bootstrap_result=drawn,
                random_state=np.random.default_rng(seed),
            )
            answers.append(holds((drawn.confidence_interval.low, drawn.confidence_interval.high), truth))
    for method, answers in held.items():
        offered = method == "basic" and n >= max(BOOTSTRAP_FROM[method], 100 * features)
        yield coverage_of(
            f"{method} bootstrap of a Fréchet distance", n, f"Gaussian, {features} features", offered, answers
        )


def _frechet_to_standard_normal(shift: Values, covariance: Values) -> Values:
    """‖μ‖² + tr(Σ + 1 - 2 Σ^½), over leading dimensions."""
    eigenvalues = np.clip(np.linalg.eigvalsh(covariance), 0, None)
    return np.asarray((shift**2).sum(-1) + ((np.sqrt(eigenvalues) - 1) ** 2).sum(-1))


@dataclass(frozen=True)
class FalseFlags:
    """Identical variants in tables of 8 rows: how often the table has a verdict of better or worse."""

    n: int
    rows: str
    data: str
    required: bool
    path: str
    """Whether the functions themselves decided, or the same formula over arrays."""
    tables: int
    tables_flagged: float
    monte_carlo_error: float
    tests_flagged_uncorrected: float
    """Share of single rows with an unadjusted p-value below 0.05."""
    met: bool
    """At most 5 ± 1 % of tables."""


def false_flags(n: int, tables: int, independent: bool) -> FalseFlags:
    """Through `compare_paired`, `compare_all` and `adjust` themselves, on normal data."""
    rng = np.random.default_rng([n, int(independent)])
    flagged, small = 0, 0
    for _ in range(tables):
        shared = rng.normal(size=n)  # the seed's own difficulty, which pairing removes
        x = shared + 0.5 * rng.normal(size=(16 if independent else 9, n))
        if independent:
            verdicts = adjust(
                {str(i): compare_paired(x[i].tolist(), x[i + 8].tolist(), "lower") for i in range(8)}
            ).values()
        else:
            verdicts = compare_all({str(i): row.tolist() for i, row in enumerate(x)}, "0", "lower").values()
        flagged += any(one.verdict in ("better", "worse") for one in verdicts)
        small += sum((one.p_value or 0.0) < 0.05 for one in verdicts)
    rows = "8 independent metrics of two variants" if independent else "8 variants against one baseline"
    return _flags(n, rows, NORMAL.name, "the functions themselves", tables, flagged / tables, small / tables / 8)


def false_flags_fast(n: int, data: Population, required: bool) -> FalseFlags:
    """The same decision in one numpy expression, for 8 independent metrics; what Holm flags first is min p < 0.05 / 8.

    Not required where a seed yields one of two values: no t-test covers that, and the sign-flip test is shown too.
    """
    tables = 50_000
    rng = np.random.default_rng(n)
    differences = data.draw(rng, (tables, 8, n)) - data.draw(rng, (tables, 8, n))
    centre, spread = differences.mean(-1), differences.std(-1, ddof=1)
    equal = spread <= 1e-12
    p = 2 * stats.t.sf(np.abs(centre) * n**0.5 / np.where(equal, 1.0, spread), n - 1)
    p = np.where(equal, np.where(centre == 0, 1.0, 2.0 ** (1 - n)), p)
    flagged = float((p.min(1) < 0.05 / 8).mean())
    rows = "8 independent metrics of two variants"
    return _flags(n, rows, data.name, "vectorised", tables, flagged, float((p < 0.05).mean()), required)


def _flags(
    n: int, rows: str, data: str, path: str, tables: int, rate: float, single: float, required: bool = True
) -> FalseFlags:
    error = (rate * (1 - rate) / tables) ** 0.5
    return FalseFlags(
        n, rows, data, required, path, tables, round(rate, 4), round(error, 4), round(single, 4), rate <= 0.06
    )


def measure_coverage() -> Iterator[Coverage]:
    yield from (seeds(n, 20_000) for n in (2, 3, 5, 10))
    yield from (image_means(n, data, True, 20_000) for n in (30, 100) for data in (NORMAL, GAMMA))
    yield image_means(30, EXPONENTIAL, False, 20_000)
    yield from (naive_image_means(n, GAMMA, 20_000) for n in (5, 10, 20))
    yield from (medians(n, data, 5_000) for n in (6, 7, 8, 10) for data in (NORMAL, LOGNORMAL))
    yield from (proportions(n, expected) for n, expected in ((200, 20), (1000, 20), (2000, 20), (200, 2)))
    yield from (gains(n, *spread, 10_000) for n in (3, 5) for spread in ((0.02, 0.0), (0.02, 0.8), (0.2, 0.0)))
    for n, data in ((100, NORMAL), (100, GAMMA)):
        yield from bootstrap_means(n, data, True, 8_000)
    for n, data in ((100, EXPONENTIAL), (5, GAMMA), (20, GAMMA)):
        yield from bootstrap_means(n, data, False, 8_000)
    yield from bootstrap_means(1000, GAMMA, True, 2_000)
    for n, features in ((100, 8), (200, 4), (1000, 4), (1000, 10)):
        yield from bootstrap_frechet(n, features, 2_000)


def measure_false_flags() -> Iterator[FalseFlags]:
    yield false_flags(6, 5_000, independent=True)
    yield false_flags(10, 1_000, independent=True)
    yield false_flags(6, 2_000, independent=False)
    for population in (NORMAL, HEAVY_TAILED, EXPONENTIAL, ROUNDED, FAILING):
        for n in (6, 8, 10):
            yield false_flags_fast(n, population, required=population is not FAILING)


def main() -> None:
    assert holm([0.00625 - 1e-9] + [0.9] * 7)[0] < 0.05 <= holm([0.00625] + [0.9] * 7)[0]  # as false_flags_fast says
    coverages, flags = [], []
    for kept, measured in ((coverages, measure_coverage()), (flags, measure_false_flags())):
        for one in measured:
            kept.append(one)
            print(one, flush=True)
    required = [one.met for one in coverages if one.offered] + [one.met for one in flags if one.required]
    document = {
        "command": "python benchmarks/coverage.py",
        "environment": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "met": sum(required),
        "of": len(required),
        "required": "coverage of 95 ± 1.5 % where offered; at most 5 ± 1 % of tables of identical variants flagged",
        "coverage": [asdict(one) for one in coverages],
        "identical_variants": [asdict(one) for one in flags],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    assert document["met"] == document["of"], "a figure lies outside its range"


if __name__ == "__main__":
    main()
