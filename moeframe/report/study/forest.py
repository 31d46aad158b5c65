"""The forest plot of a study: the difference of each variant from the baseline, with its interval."""

import math
from dataclasses import dataclass

from moeframe.report.numbers import format_interval, signed
from moeframe.report.study.rows import Against, Column, Table
from moeframe.report.study.styles import VariantStyles

TICKS = 6
"""About as many ticks as the axis has."""
MARGIN = 0.02
"""Share of the axis that stays free at each end."""


@dataclass(frozen=True)
class ForestRow:
    """One variant; places are percentages of the axis from its left end."""

    title: str
    group: str
    labelled: bool
    text: str
    """The difference."""
    hint: str
    """The difference with its interval."""
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """All rows, the best first, and the axis."""

    metric: str
    unit: str
    lower_is_better: bool
    zero: float
    ticks: list[tuple[float, str]]
    rows: list[ForestRow]


def forest(table: Table, column: Column, styles: VariantStyles) -> Forest | None:
    """Return the forest plot of one metric, or None without a comparison with the baseline."""
    compared = [(row, one) for row in table.rows if (one := row.cells[column.name].against) is not None]
    if not compared:
        return None
    ends: list[float] = [0.0, *(end for _, one in compared for end in (one.difference, *(one.interval or ())))]
    low, high = min(ends), max(ends)
    margin = MARGIN * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    sign = 1 if column.better == "lower" else -1
    compared.sort(key=lambda found: sign * found[1].difference)
    rows = [
        ForestRow(
            title=row.title,
            group=styles.group(row.name),
            labelled=row.name in styles.labelled,
            text=f"{signed(one.difference, one.interval)}{one.incomplete}",
            hint=f"{row.title}: {_with_interval(one)}",
            at=place(one.difference),
            low=place(one.interval[0]) if one.interval else None,
            high=place(one.interval[1]) if one.interval else None,
        )
        for row, one in compared
    ]
    ticks = [(place(value), signed(value) if value else "0") for value in ticks_between(low, high)]
    return Forest(column.title, column.unit, column.better == "lower", place(0.0), ticks, rows)


def _with_interval(one: Against) -> str:
    interval = f" (95 % interval {format_interval(one.interval)})" if one.interval else ""
    return f"{signed(one.difference, one.interval)}{interval}, n = {one.n} seeds"


def ticks_between(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, zero among them where it is between.

    >>> ticks_between(-0.09, 0.16)
    [-0.05, 0.0, 0.05, 0.1, 0.15]
    """
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(k * step, digits) + 0.0 for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
