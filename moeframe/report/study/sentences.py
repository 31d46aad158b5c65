"""Every comparison of a study in one sentence, which claims no more than its interval supports."""

from collections.abc import Iterator

from moeframe.report.numbers import format_interval, signed
from moeframe.report.study.rows import Against, Column, Table
from moeframe.report.study.verdicts import findings


def in_short(table: Table) -> list[str]:
    """Return the verdicts as sentences, the best variant first."""
    return [str(finding) for finding in findings(table)]


def sentences(table: Table) -> list[str]:
    """Return one sentence per comparison: the difference, its interval, and whether it is significant."""
    return [said for _, said in said_of(table)]


def said_of(table: Table) -> Iterator[tuple[Against, str]]:
    """Yield each comparison with the baseline and each pair of the study, in every metric, with its sentence."""
    for row in table.rows:
        for column in table.columns:
            one = row.cells[column.name].against
            if one is not None:
                yield one, _sentence(one, row.title, table.title_of(table.baseline), column)
    for pair in table.pairs:
        for column in table.columns:
            if column.name in pair.against:
                first, second = table.title_of(pair.first), table.title_of(pair.second)
                yield pair.against[column.name], _sentence(pair.against[column.name], first, second, column)


def _sentence(one: Against, title: str, other: str, column: Column) -> str:
    better = (one.difference < 0) == (column.better == "lower")
    direction = "equal" if one.difference == 0 else f"{'better' if better else 'worse'} on average"
    conclusion = {
        "better": "significantly better",
        "worse": "significantly worse",
        "no difference shown": f"{direction}, not significant",
        "underpowered": direction,
    }[one.verdict]
    interval = "" if one.interval is None else f", 95 % interval {format_interval(one.interval)}"
    p = "" if one.p_adjusted is None else f", Holm-adjusted p = {one.p_adjusted:.2g}"
    seeds = f"n = {one.n} of {one.of} seeds" if one.n < one.of else f"n = {one.n} seed{'s' if one.n > 1 else ''}"
    unit = "" if column.unit == column.title else f" {column.unit.split(',')[0]}"
    difference = f"{signed(one.difference, one.interval)}{unit if len(column.unit) < 20 else ''}"
    return f"{title} vs {other}, {column.title}: {conclusion}; difference {difference}{interval}, {seeds}{p}."
