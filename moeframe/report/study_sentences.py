"""What the table of a study says, in words that claim no more than the intervals carry."""

from moeframe.report.figures import format_figure, format_interval
from moeframe.report.study_tables import Against, Column, Row, Table


def sentences(table: Table) -> list[str]:
    """For every comparison what changed, by how much, with which certainty; never more than the interval carries."""
    of_baseline = [
        sentence(row, table, column)
        for row in table.rows
        for column in table.columns
        if row.cells[column.name].against is not None
    ]
    return [*of_baseline, *sentences_of_pairs(table)]


def sentences_of_pairs(table: Table) -> list[str]:
    """The same for the pairs that the study asks for."""
    return [
        _sentence(pair.against[column.name], table.title_of(pair.first), table.title_of(pair.second), table, column)
        for pair in table.pairs
        for column in table.columns
        if column.name in pair.against
    ]


def sentence(row: Row, table: Table, column: Column) -> str:
    """One of them."""
    one = row.cells[column.name].against
    assert one is not None, "only what is compared has a sentence"
    return _sentence(one, row.title, table.title_of(table.baseline), table, column)


def _sentence(one: Against, title: str, other: str, table: Table, column: Column) -> str:
    better = (one.difference < 0) == (column.better == "lower")
    direction = "no different" if one.difference == 0 else f"{'better' if better else 'worse'} on average"
    signed = f"{'+' if one.difference > 0 else ''}{format_figure(one.difference, one.interval)} {column.unit}"
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
    return f"{what}: {direction} over {one.n} seeds, difference {signed}{interval}{p}; {certainty}{lacking}."
