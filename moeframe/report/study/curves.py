"""Learning curves of a study at equal training compute: where one variant overtakes another, in words."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moeframe.report.numbers import format_interval, signed
from moeframe.report.study.costs import BACKWARD, flops_per_call
from moeframe.report.study.record import Evidence
from moeframe.report.study.rows import Table
from moeframe.stats.intervals import mean, t_interval

Curve = Sequence[tuple[float, float]]


def costs_of_calls(table: Table, evidence: Sequence[Evidence]) -> dict[str, float]:
    """Return the FLOPs of one training call, forward and backward, of each variant that measured them.

    1 for every variant, which counts calls, if the baseline did not measure them.
    """
    per_call = {one.name: flops_per_call(one.facts) for one in evidence}
    if per_call.get(table.baseline) is None:
        return dict.fromkeys(per_call, 1.0)
    return {name: (1 + BACKWARD) * flops for name, flops in per_call.items() if flops is not None}


def overtaking(table: Table, evidence: Sequence[Evidence]) -> list[str]:
    """Say who leads at equal training compute, for each variant against the baseline and each pair of the study.

    A point counts where the interval over seeds excludes zero, uncorrected. Before the end of a training its learning
    rate may still be high, so each sentence says how much of both trainings is done.
    """
    costs, by_name = costs_of_calls(table, evidence), {one.name: one for one in evidence}
    pairs = [(row.name, table.baseline) for row in table.rows if row.name != table.baseline]
    pairs += [(pair.first, pair.second) for pair in table.pairs]
    return [
        sentence
        for first, second in pairs
        if first in costs and second in costs
        for sentence in _said(by_name[first], by_name[second], costs)
    ]


def _said(first: Evidence, second: Evidence, costs: Mapping[str, float]) -> Iterator[str]:
    seeds = [seed.seed for seed in first.seeds if seed.seed in {other.seed for other in second.seeds}]
    curves = [
        (first.learning_of(seed, costs[first.name]), second.learning_of(seed, costs[second.name])) for seed in seeds
    ]
    curves = [(one, two) for one, two in curves if len(one) > 1 and len(two) > 1]
    if not curves:
        return
    grid = _common(curves)
    if len(grid) < 2:
        return
    differences = np.array([_at(one, grid) - _at(two, grid) for one, two in curves])
    intervals = [t_interval(place) for place in differences.T.tolist()]
    ahead = [cost for cost, ends in zip(grid, intervals, strict=True) if ends is not None and ends[1] < 0]
    behind = [cost for cost, ends in zip(grid, intervals, strict=True) if ends is not None and ends[0] > 0]
    last, n = differences[:, -1].tolist(), len(curves)
    end = f"{signed(mean(last), intervals[-1])}" + (
        "" if intervals[-1] is None else f" ({format_interval(intervals[-1])})"
    )
    if n == 1:
        below = int((differences[0] < 0).sum())
        found = f"one seed, no intervals: lower at {below} of {len(grid)} points"
    else:
        found = f"{_places(ahead, len(grid), 'lower')}, {_places(behind, len(grid), 'higher')}"
    done = [f"{min(1.0, grid[-1] / curve[-1][0]):.0%}" for curve in curves[0]]
    yield (
        f"{first.title} vs {second.title} at equal training compute, {grid[0]:.3g} to {grid[-1]:.3g}: {found}; at "
        f"the last common point {end} bits/dim over {n} seed{'s' if n > 1 else ''}, with {done[0]} and {done[1]} of "
        f"the trainings done{_warming([first, second], grid, costs)}."
    )


def _warming(variants: Sequence[Evidence], grid: Sequence[float], costs: Mapping[str, float]) -> str:
    """Say how many points are in a warm start, where each expert sees its own slice and no gate is trained."""
    counts = {one.title: sum(cost <= one.warm_start(costs[one.name]) for cost in grid) for one in variants}
    said = [
        f"{count} of the {len(grid)} points in the warm start of {title}" for title, count in counts.items() if count
    ]
    return f"; {' and '.join(said)}" if said else ""


def without_curve(table: Table, evidence: Sequence[Evidence]) -> list[str]:
    """Return the titles of variants without a learning curve, or without known training compute."""
    costs = costs_of_calls(table, evidence)
    return [one.title for one in evidence if one.name not in costs or len(one.learning()) < 2]


def _places(where: Sequence[float], n: int, side: str) -> str:
    if len(where) in (0, n):
        return f"{side} {'everywhere' if where else 'nowhere'}"
    return f"{side} at {len(where)} of {n} points, first at {where[0]:.3g}"


def _common(curves: Sequence[tuple[Curve, Curve]]) -> list[float]:
    """Return the points of the first curve within the range of the second that all seeds share."""
    shared = set.intersection(*({cost for cost, _ in one} for one, _ in curves))
    low, high = max(two[0][0] for _, two in curves), min(two[-1][0] for _, two in curves)
    return sorted(cost for cost in shared if low <= cost <= high)


def _at(curve: Curve, grid: Sequence[float]) -> NDArray[np.float64]:
    cost, bits = zip(*curve, strict=True)
    return np.asarray(np.interp(np.log(grid), np.log(cost), bits))
