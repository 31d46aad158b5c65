"""The verdicts of a study: what it shows about mixtures, controls and gates, by rules that name no variant."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moeframe.report.numbers import format_figure, format_interval, signed
from moeframe.report.study.rows import Against, Cell, Column, Row, Table
from moeframe.stats.comparison import Comparison, adjust, compare_paired

EQUAL = 0.05
"""Relative difference of training compute or parameters that counts as equal, as in the controls of specs/studies."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

Tone = Literal["better", "worse", "neutral"]


@dataclass(frozen=True)
class Finding:
    """One verdict: a claim in words, its numbers, and the variants concerned."""

    claim: str
    numbers: tuple[str, ...]
    """The difference in each leading metric."""
    variants: tuple[str, ...]
    """Their names; the first is the subject."""
    titles: str
    """The variants as a reader knows them."""
    tone: Tone = "neutral"
    """Whether the first variant is better or worse than the second."""

    def __str__(self) -> str:
        return f"{self.claim}: {'; '.join(self.numbers)}{f' ({self.titles})' if self.titles else ''}."


@dataclass(frozen=True)
class _Question:
    """Does the first variant beat the second? The claim depends on the answer."""

    first: Row
    second: Row
    if_better: str
    if_worse: str
    if_equal: str


def leading_column(table: Table) -> Column | None:
    """Return the metric that ranks the variants: likelihood, else quality, else the first that is not a cost."""
    others = (column for column in table.columns if column.role != "cost" and not column.exact)
    return table.leading("likelihood") or table.leading("quality") or next(others, None)


def findings(table: Table) -> list[Finding]:
    """Return the verdicts, the best variant first.

    A difference is called by Holm's correction over the verdicts, or by its interval under six seeds. No verdict where
    the study has no metric that ranks the variants.
    """
    lead = leading_column(table)
    ranked = _ranked(table, lead)
    if lead is None or not ranked:
        return []
    quality = table.leading("quality")
    if quality is lead:
        quality = None
    questions = {(q.first.name, q.second.name): q for q in reversed(list(_questions(table, ranked)))}
    questions = dict(reversed(questions.items()))  # the first of two questions about one pair
    compared = {
        pair: one
        for pair, question in questions.items()
        if (one := _compare(question.first.cells[lead.name], question.second.cells[lead.name], lead)) is not None
    }
    adjusted = adjust({" ".join(pair): one for pair, one in compared.items()})
    decided = {pair: (_tone(adjusted[" ".join(pair)]), adjusted[" ".join(pair)]) for pair in compared}
    found = [_best(ranked[0], lead, quality, table)]
    found += list(_against_all(table, ranked, lead, quality))
    for pair, (tone, one) in decided.items():
        question = questions[pair]
        claim = {"better": question.if_better, "worse": question.if_worse, "neutral": question.if_equal}[tone]
        if one.interval is None:
            claim = f"{question.first.title} minus {question.second.title}: one seed, so no verdict"
        claim += _contradiction(question.first, question.second, tone, lead, quality)
        numbers = tuple(_numbers(question.first, question.second, one, lead, quality, table))
        found.append(Finding(claim, numbers, pair, f"{question.first.title} vs {question.second.title}", tone))
    return found


def _ranked(table: Table, lead: Column | None) -> list[Row]:
    """Return the rows that measured the leading metric, the best first; a row that repeats another is left out."""
    if lead is None:
        return []
    rows: dict[tuple[float | None, ...], Row] = {}
    for row in table.rows:
        if row.cells[lead.name].mean is not None:
            rows.setdefault(row.cells[lead.name].per_seed, row)
    sign = 1 if lead.better == "lower" else -1
    return sorted(rows.values(), key=lambda row: sign * (row.cells[lead.name].mean or 0.0))


def _best(row: Row, lead: Column, quality: Column | None, table: Table) -> Finding:
    """Say which variant has the best mean, and whether it also leads in quality."""
    also = quality is not None and next(iter(_ranked(table, quality)), None) is row
    claim = f"Best {lead.title}{f' and {quality.title}' if quality and also else ''}: {row.title}"
    numbers = [_mean(row.cells[lead.name], lead)]
    if quality and also:
        numbers.append(_mean(row.cells[quality.name], quality))
    return Finding(claim, tuple(numbers), (row.name,), "")


def _mean(cell: Cell, column: Column) -> str:
    assert cell.mean is not None
    interval = f" ({format_interval(cell.interval)})" if cell.interval else ""
    value = format_figure(cell.mean, cell.interval)
    return f"{value} {column.unit}{interval}" if column.unit == column.title else f"{column.title} {value}{interval}"


def _against_all(table: Table, ranked: list[Row], lead: Column, quality: Column | None) -> Iterator[Finding]:
    """Say whether the best single expert beats every mixture, or the best mixture every single expert."""
    single = [row for row in ranked if row.n_experts == 1]
    merged = [row for row in ranked if row.n_experts > 1]
    if not single or not merged:
        return
    best, others = (single[0], merged) if ranked[0].n_experts == 1 else (merged[0], single)
    compared = {row.name: one for row in others if (one := _compare(best.cells[lead.name], row.cells[lead.name], lead))}
    if others[0].name not in compared:
        return
    adjusted = adjust(compared)
    wins = all(_tone(one) == "better" for one in adjusted.values()) and len(adjusted) == len(others)
    kind, rest = ("One expert", "mixture") if best is single[0] else ("A mixture", "single expert")
    cost = _at_cost(best, others[0])
    claim = f"{kind} {'beats' if wins else 'leads, but does not clearly beat,'} every {rest}"
    claim += _contradiction(best, others[0], "better" if wins else "neutral", lead, quality)
    claim += f", the best of them{cost}" if cost else ""
    numbers = tuple(_numbers(best, others[0], adjusted[others[0].name], lead, quality, table))
    titles = f"{best.title} vs the best {rest}, {others[0].title}"
    yield Finding(claim, numbers, (best.name, others[0].name), titles, "better" if wins else "neutral")


def _questions(table: Table, ranked: list[Row]) -> Iterator[_Question]:
    """Yield what a reader wants to know, as far as the study has the variants for it."""
    subject = _subject(table, ranked)
    if subject is not None:
        controls = [row for row in ranked if row.n_experts == 1 and row.name != table.baseline]
        same_compute = [row for row in controls if _equal(subject.training_flops, row.training_flops)]
        same_size = [row for row in controls if _equal(_parameters(subject, table), _parameters(row, table))]
        yield from _of_control(subject, same_compute, "training compute")
        yield from _of_control(subject, same_size, "parameters")
    base = next((row for row in ranked if row.name == table.baseline), None)
    first = subject or next((row for row in ranked if row is not base), None)
    if base is not None and first is not None and first is not base:
        cost = _at_cost(first, base)
        who = _experts(first) if first.n_experts > 1 and base.n_experts == 1 else ""
        what = (who, "the single-expert baseline") if who else ("The best other variant", "the baseline")
        beat, do, lose = ("beat", "do", "show") if who else ("beats", "does", "shows")
        yield _Question(
            first,
            base,
            f"{what[0]} {beat} {what[1]}{cost}",
            f"{what[0]} {do} not beat {what[1]}{cost}",
            f"{what[0]} {lose} no clear difference from {what[1]}{cost}",
        )
    yield from _of_averages(table, ranked)
    for row in ranked:
        source = next((other for other in ranked if other.name == row.weights_of), None)
        if source is not None:
            changed = "Changing the settings of trained weights"
            yield _Question(row, source, f"{changed} helps", f"{changed} hurts", f"{changed} shows no clear difference")


def _subject(table: Table, ranked: list[Row]) -> Row | None:
    """Return the mixture that the study is about: that of its first pair, else the best one."""
    first = table.pairs[0].first if table.pairs else ""
    merged = [row for row in ranked if row.n_experts > 1]
    return next((row for row in merged if row.name == first), merged[0] if merged else None)


def _of_control(subject: Row, controls: list[Row], what: str) -> Iterator[_Question]:
    """Compare a mixture with the best single expert of equal cost."""
    if controls:
        who, other = _experts(subject), f"one network of equal {what}"
        texts = (f"{who} beat {other}", f"{who} do not beat {other}", f"{who} show no clear difference from {other}")
        yield _Question(subject, controls[0], *texts)


def _of_averages(table: Table, ranked: list[Row]) -> Iterator[_Question]:
    """Compare a plain average with the learned gate that the study pairs it with, else the best of as many experts."""
    for row in ranked:
        if row.n_experts < 2 or not row.averages:
            continue
        paired = {name for pair in table.pairs if row.name in (names := (pair.first, pair.second)) for name in names}
        learned = [one for one in ranked if one.n_experts == row.n_experts and not one.averages]
        other = next((one for one in learned if one.name in paired), learned[0] if learned else None)
        if other is not None:
            who, gate = f"A plain average of {_number(row.n_experts)} experts", "the learned gate"
            texts = (
                f"{who} beats {gate}",
                f"{who} does not beat {gate}",
                f"{who} shows no clear difference from {gate}",
            )
            yield _Question(row, other, *texts)


def _compare(first: Cell, second: Cell, column: Column) -> Comparison | None:
    """Return the paired comparison of two cells, or None without a common seed."""
    pairs = zip(first.per_seed, second.per_seed, strict=False)
    if not any(a is not None and b is not None for a, b in pairs):
        return None
    return compare_paired(first.per_seed, second.per_seed, column.better)


def _tone(one: Comparison) -> Tone:
    """Return whether the first is better: by the corrected test, or by the interval where seeds are too few for it."""
    if one.verdict == "better" or one.verdict == "worse":
        return one.verdict
    low, high = one.interval or (0.0, 0.0)
    if one.verdict == "underpowered" and (low > 0 or high < 0):
        return "better" if (high < 0) == (one.better == "lower") else "worse"
    return "neutral"


def _contradiction(first: Row, second: Row, tone: Tone, lead: Column, quality: Column | None) -> str:
    """Limit a claim to its metric where sample quality says the opposite."""
    one = None if quality is None else _compare(first.cells[quality.name], second.cells[quality.name], quality)
    if quality is None or one is None or {tone, _tone(one)} != {"better", "worse"}:
        return ""
    return f" in {lead.title}, but the opposite holds for {quality.title}"


def _numbers(
    first: Row, second: Row, one: Comparison, lead: Column, quality: Column | None, table: Table
) -> Iterator[str]:
    """Yield the difference in the leading metric and the one in quality."""
    yield _difference(one, lead, table)
    if quality is not None:
        other = _compare(first.cells[quality.name], second.cells[quality.name], quality)
        if other is not None:
            yield _difference(other, quality, table)


def _difference(one: Comparison, column: Column, table: Table) -> str:
    against = Against(
        difference=one.mean_difference,
        interval=one.interval,
        p_adjusted=None,
        verdict=one.verdict,
        relative_gain=None,
        n=one.n,
        of=len(table.seeds) or one.n,
    )
    return _figure(against, column)


def _figure(one: Against, column: Column) -> str:
    """Return a difference with its interval and unit, such as "+0.054 bits/dim (0.045 to 0.063)"."""
    interval = "" if one.interval is None else f" ({format_interval(one.interval)})"
    difference = signed(one.difference, one.interval)
    named = f"{column.title} {difference}" if column.title != column.unit else f"{difference} {column.unit}"
    return f"{named}{interval}{one.incomplete}"


def _experts(row: Row) -> str:
    return f"{_number(row.n_experts).capitalize()} experts"


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def _parameters(row: Row, table: Table) -> float | None:
    """Return the parameters of a variant, where the study counts them."""
    counted = (column.name for column in table.columns if column.role == "cost" and column.unit == "parameters")
    name = next(counted, None)
    return row.cells[name].mean if name is not None else None


def _equal(own: float | None, other: float | None) -> bool:
    return bool(own and other) and abs((own or 0.0) - (other or 0.0)) < EQUAL * max(own or 0.0, other or 0.0)


def _at_cost(first: Row, second: Row) -> str:
    """Return the training compute of the first relative to the second, as the end of a phrase."""
    own, other = first.training_flops, second.training_flops
    if not own or not other:
        return ""
    return " at equal training compute" if _equal(own, other) else f" at {own / other:.2g} times the training compute"
