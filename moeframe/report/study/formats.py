"""The tables of a study as CSV, Markdown, LaTeX and JSON; the same table gives the same bytes."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from moeframe.report.numbers import format_figure, format_interval, signed
from moeframe.report.study.rows import Against, Cell, Column, Row, Table
from moeframe.stats.comparison import COMPARED_FROM
from moeframe.storage.atomic import write_file

FOLDER = "tables"


def write_table(folder: Path, name: str, table: Table) -> None:
    """Write tables/NAME.{json,csv,md,tex} in the folder."""
    place = folder / FOLDER
    content = json.dumps(table.model_dump(), separators=(",", ":"), allow_nan=False, ensure_ascii=False) + "\n"
    write_file(place / f"{name}.json", content.encode())
    write_file(place / f"{name}.csv", as_csv(table).encode())
    write_file(place / f"{name}.md", as_markdown(table).encode())
    write_file(place / f"{name}.tex", as_latex(table).encode())


def remove_table(folder: Path, name: str) -> None:
    """Delete the files of a table that no longer exists."""
    for suffix in ("json", "csv", "md", "tex"):
        (folder / FOLDER / f"{name}.{suffix}").unlink(missing_ok=True)


CSV_COLUMNS = (
    *("variant", "title", "metric", "unit", "better", "mean", "low", "high", "seeds"),
    *("against", "difference", "difference_low", "difference_high", "p_adjusted", "verdict"),
    *("relative_gain", "gain_low", "gain_high", "pairs"),
    *("ratio", "best", "training_calls", "training_flops", "finished", "planned", "why_not"),
)


def as_csv(table: Table) -> str:
    """Return one line per variant and metric with all facts of the cell, and one line per pair and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for column in table.columns:
            cell = row.cells[column.name]
            low, high = cell.interval or ("", "")
            values = [row.name, row.title, column.name, column.unit, column.better, cell.mean, low, high, cell.n_seeds]
            compared = _compared(cell.against, table.baseline)
            writer.writerow(["" if value is None else value for value in [*values, *compared, *_rest(cell, row)]])
    for pair in table.pairs:
        for column in table.columns:
            if one := pair.against.get(column.name):
                title = table.title_of(pair.first)
                values = [pair.first, title, column.name, column.unit, column.better, "", "", "", ""]
                compared = _compared(one, pair.second)
                writer.writerow(["" if value is None else value for value in [*values, *compared, *[""] * 7]])
    return buffer.getvalue()


def _compared(one: Against | None, other: str) -> list[object]:
    if one is None:
        return [""] * 10
    low, high = one.interval or ("", "")
    gain = (one.relative_gain, *(one.gain_interval or ("", "")))
    return [other, one.difference, low, high, one.p_adjusted, one.verdict, *gain, one.n]


def _rest(cell: Cell, row: Row) -> list[object]:
    costs = [row.training_calls, row.training_flops]
    return [cell.ratio, cell.best, *costs, row.finished, row.seeds, cell.why_not or cell.missing]


def as_markdown(table: Table) -> str:
    """Return the table (mean ± half the interval), the differences from the baseline, and the pairs."""
    blocks = []
    for head, rows in _blocks(table, lambda cell, row: shown_cell(cell, row.seeds, "**{}**")):
        lines = [head, ["---"] * len(head), *rows]
        blocks.append(
            "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)
        )
    return "\n\n".join([*blocks, _legend(table), *notes(table)]) + "\n"


def as_latex(table: Table) -> str:
    """Return the same as tabular environments."""
    blocks = []
    for head, rows in _blocks(table, lambda cell, row: shown_cell(cell, row.seeds, f"{BOLD}{{}}{BOLD_END}")):
        lines = [" & ".join(_escaped(text) for text in line) + r" \\" for line in (head, *rows)]
        body = "\n".join([lines[0], r"\hline", *lines[1:]])
        blocks.append(f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}")
    beside = [rf"\noindent {_escaped(text)}" for text in (_legend(table), *notes(table))]
    return "\n\n".join([*blocks, *beside]) + "\n"


Lines = list[list[str]]


def _blocks(table: Table, show: Callable[[Cell, Row], str]) -> Iterator[tuple[list[str], Lines]]:
    """Yield heading and lines of each block: values, differences from the baseline, pairs."""
    heads = [heading(column) for column in table.columns]
    lines = []
    for row in table.rows:
        seeds = str(row.finished) if row.complete else f"incomplete: {row.finished} of {row.seeds}"
        cells = [show(row.cells[column.name], row) for column in table.columns]
        lines.append([row.title, *cells, f"{row.training_calls:,}", shown_flops(row), seeds])
    yield ["variant", *heads, "training calls", "training FLOPs", "seeds"], lines
    tested = [column for column in table.columns if not column.exact]
    yield (
        [f"minus {table.title_of(table.baseline)}", *(column.title for column in tested)],
        [
            [row.title, *(shown_difference(row.cells[column.name].against) for column in tested)]
            for row in table.rows
            if row.name != table.baseline
        ],
    )
    if table.pairs:
        yield (
            ["first minus second", *(column.title for column in tested)],
            [
                [
                    f"{table.title_of(pair.first)} minus {table.title_of(pair.second)}",
                    *(shown_difference(pair.against.get(column.name)) for column in tested),
                ]
                for pair in table.pairs
            ],
        )


def heading(column: Column) -> str:
    """Return title and unit of a metric, with an arrow towards better values."""
    unit = "" if column.unit in (column.title, "") else f", {column.unit.removeprefix(f'{column.title}, ')}"
    return f"{column.title}{unit} {'↓' if column.better == 'lower' else '↑'}"


def shown_flops(row: Row) -> str:
    """Return the FLOPs of training to three digits."""
    return "–" if row.training_flops is None else f"{row.training_flops:.3g}"


def notes(table: Table) -> list[str]:
    """Return what a reader must know beside the values: cautions, missing values, missing runs, too few seeds."""
    few = f"Fewer than {COMPARED_FROM} seeds: no significance is claimed; intervals are descriptive."
    return [*facts(table), *([few] if len(table.seeds) < COMPARED_FROM else [])]


def facts(table: Table) -> list[str]:
    """Return the notes without the one on the number of seeds."""
    found = [f"{column.title}: {column.caution}." for column in table.columns if column.caution]
    for column in table.columns:
        reasons: dict[str, list[str]] = {}
        for row in table.rows:
            cell = row.cells[column.name]
            if why := cell.why_not or cell.missing:
                reasons.setdefault(why, []).append(row.title)
        found += [f"{column.title} missing for {', '.join(titles)}: {why}." for why, titles in reasons.items()]
    found += [f"{title} was not measured: {why}." for title, why in table.not_measured.items()]
    if table.not_run:
        found.append(f"Not run: {', '.join(table.not_run)}.")
    if len(table.seeds) < table.planned_seeds:
        found.append(f"{len(table.seeds)} of {table.planned_seeds} planned seeds were run.")
    return found


def shown_difference(one: Against | None) -> str:
    """Return a paired difference with its interval, the relative gain, and the adjusted p where it was tested."""
    if one is None:
        return "–"
    interval = "" if one.interval is None else f" ({format_interval(one.interval)})"
    gain = "" if one.relative_gain is None else f", gain {one.relative_gain:+.1%}"
    gain += "" if one.gain_interval is None else f" ({one.gain_interval[0]:+.1%} to {one.gain_interval[1]:+.1%})"
    p = "" if one.p_adjusted is None else f", p = {one.p_adjusted:.2g}"
    return f"{signed(one.difference, one.interval)}{interval}{one.incomplete}{gain}{p}"


MARKS: Mapping[str, str] = {"better": " (better)", "worse": " (worse)", "no difference shown": "", "underpowered": " †"}


def shown_cell(cell: Cell, seeds: int, bold: str = "{}") -> str:
    """Return the mean ± half its interval, its mark against the baseline, and the seeds if some are missing."""
    if cell.mean is None:
        return "–"
    figure = format_figure(cell.mean, cell.interval)
    half = (
        ""
        if cell.interval is None or cell.interval[0] == cell.interval[1]
        else f" ± {format_figure((cell.interval[1] - cell.interval[0]) / 2, cell.interval)}"
    )
    mark = MARKS[cell.against.verdict] if cell.against else ""
    mark += "" if cell.ratio is None or cell.ratio == 1 else f" ({cell.ratio:.3g}x)"
    mark += f" [{cell.n_seeds} of {seeds} seeds]" if cell.n_seeds < seeds else ""
    return f"{bold.format(figure) if cell.best else figure}{half}{mark}"


def _legend(table: Table) -> str:
    return (
        f"Dataset: {table.dataset}. Mean ± half the 95 % t-interval over seeds. (better), (worse): significantly, "
        f"against {table.title_of(table.baseline)}, paired by seed, Holm-corrected over the rows of each metric. "
        "(2x): twice the value of the baseline. †: underpowered, too few seeds for a significance test (need 6). "
        "Bold: significantly better than every other row. Training FLOPs: three times those of the forward passes, "
        "including the variants that one is made of."
    )


BOLD, BOLD_END = "\x02", "\x03"
"""Placeholders that no title contains; `_escaped` replaces them by LaTeX."""
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _escaped(text: str) -> str:
    plain = "".join(LATEX.get(character, character) for character in text)
    signs = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "†": r"$\dagger$"}
    signs |= {BOLD: r"\textbf{", BOLD_END: "}"}
    for sign, latex in signs.items():
        plain = plain.replace(sign, latex)
    return plain
