"""What the table of a study says, in words that claim no more than the intervals carry."""

from collections.abc import Iterator

from moeframe.report.numbers import format_interval, signed
from moeframe.report.study.rows import Against, Column, Table

LIKELIHOOD = ("bits_per_dim",)
EQUAL = 0.05
"""Relative difference of training operations that is called none, as of the controls in specs/studies."""
QUALITY = ("fid", "frechet", "kid", "inception_score")
"""Metrics of samples; the first that was measured speaks for them."""


def sentences(table: Table) -> list[str]:
    """For every comparison what changed, by how much, with which certainty; never more than the interval carries."""
    return [said for _, said in said_of(table)]


def said_of(table: Table) -> Iterator[tuple[Against, str]]:
    """Each variant against the baseline and each pair that the study asks for, in every metric, with its sentence."""
    for row in table.rows:
        for column in table.columns:
            one = row.cells[column.name].against
            if one is not None:
                yield one, _sentence(one, row.title, table.title_of(table.baseline), table, column)
    for pair in table.pairs:
        for column in table.columns:
            if column.name in pair.against:
                first, second = table.title_of(pair.first), table.title_of(pair.second)
                yield pair.against[column.name], _sentence(pair.against[column.name], first, second, table, column)


def in_short(table: Table) -> list[str]:
    """The variant that the study's first pair asks about, against the baseline and what else it is paired with.

    In one metric of likelihood and one of quality; without pairs, every variant against the baseline.
    """
    shown = [next((column for column in table.columns if column.name in kind), None) for kind in (LIKELIHOOD, QUALITY)]
    columns = [column for column in shown if column is not None]
    asked = table.pairs[0].first if table.pairs else None
    compared = [
        (row.title, table.title_of(table.baseline), {name: cell.against for name, cell in row.cells.items()})
        for row in table.rows
        if asked in (None, row.name)
    ]
    compared += [
        (table.title_of(pair.first), table.title_of(pair.second), dict(pair.against))
        for pair in table.pairs
        if pair.first == asked
    ]
    found = []
    for first, second, against in compared:
        figures = [_figure(one, column) for column in columns if (one := against.get(column.name)) is not None]
        found += [f"{first}, minus {second}{_at_cost(table, first, second)}: {'; '.join(figures)}."] if figures else []
    return found


def _at_cost(table: Table, first: str, second: str) -> str:
    """What the first's training takes of the second's, in operations."""
    flops = {row.title: row.training_flops for row in table.rows}
    own, other = flops[first], flops[second]
    if not own or not other:
        return ""
    ratio = own / other
    return " (at equal training FLOPs)" if abs(ratio - 1) < EQUAL else f" (at {ratio:.2g} times its training FLOPs)"


def _figure(one: Against, column: Column) -> str:
    interval = "" if one.interval is None else f" ({format_interval(one.interval)})"
    said = {"better": ", better", "worse": ", worse", "no difference shown": ", no difference shown"}
    figure = f"{column.name} {signed(one.difference, one.interval)}{interval}{one.incomplete}"
    return f"{figure}{said.get(one.verdict, '')}"


def _sentence(one: Against, title: str, other: str, table: Table, column: Column) -> str:
    better = (one.difference < 0) == (column.better == "lower")
    direction = "no different" if one.difference == 0 else f"{'better' if better else 'worse'} on average"
    difference = f"{signed(one.difference, one.interval)} {column.unit}"
    interval = "" if one.interval is None else f", 95 % interval {format_interval(one.interval)}"
    n_seeds = len(table.seeds)
    certainty = {
        "better": "a difference that the seeds support",
        "worse": "a difference that the seeds support",
        "no difference shown": "a difference that the seeds do not support",
        "underpowered": "underpowered: too few seeds to call it a difference",
    }[one.verdict]
    p = "" if one.p_adjusted is None else f", Holm-adjusted p = {one.p_adjusted:.2g}"
    lacking = f"; incomplete, {one.n} of {n_seeds} seeds" if one.n < n_seeds else ""
    what = f"{title} against {other}, {column.name}"
    return f"{what}: {direction} over {one.n} seeds, difference {difference}{interval}{p}; {certainty}{lacking}."
