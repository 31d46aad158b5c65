"""Tables of a study as CSV, Markdown, LaTeX and JSON; the same table gives the same bytes."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from moeframe.report.figures import format_figure, format_interval
from moeframe.report.study_tables import Cell, Row, Table
from moeframe.storage import write_file

FOLDER = "tables"


def write_table(folder: Path, name: str, table: Table) -> None:
    """tables/NAME.{json,csv,md,tex} below the folder."""
    place = folder / FOLDER
    content = json.dumps(table.model_dump(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_file(place / f"{name}.json", content.encode())
    write_file(place / f"{name}.csv", as_csv(table).encode())
    write_file(place / f"{name}.md", as_markdown(table).encode())
    write_file(place / f"{name}.tex", as_latex(table).encode())


CSV_COLUMNS = (
    *("variant", "title", "metric", "unit", "better", "mean", "low", "high", "seeds"),
    *("difference", "difference_low", "difference_high", "p_adjusted", "verdict", "relative_gain"),
    *("pairs", "ratio", "best", "training_calls", "finished", "planned", "why_not"),
)


def as_csv(table: Table) -> str:
    """One line per variant and metric, with everything that a cell knows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for column in table.columns:
            cell = row.cells[column.name]
            one = cell.against
            low, high = cell.interval or ("", "")
            d_low, d_high = (one.interval if one else None) or ("", "")
            against = (
                [one.difference, d_low, d_high, one.p_adjusted, one.verdict, one.relative_gain, one.n]
                if one
                else [""] * 7
            )
            values = [row.name, row.title, column.name, column.unit, column.better, cell.mean, low, high, cell.n_seeds]
            writer.writerow(["" if value is None else value for value in [*values, *against, *_rest(cell, row)]])
    return buffer.getvalue()


def _rest(cell: Cell, row: Row) -> list[object]:
    return [cell.ratio, cell.best, row.training_calls, row.finished, row.seeds, cell.why_not]


def as_markdown(table: Table) -> str:
    """A compact table, mean ± half interval, and one of the differences from the baseline, paired by seed."""
    blocks = []
    for head, rows in _blocks(table, lambda cell, row: shown_cell(cell, row.seeds, "**{}**")):
        lines = [head, ["---"] * len(head), *rows]
        blocks.append(
            "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)
        )
    return "\n\n".join([*blocks, _legend(table)]) + "\n"


def as_latex(table: Table) -> str:
    """The same as two tabular environments."""
    blocks = []
    for head, rows in _blocks(table, lambda cell, row: shown_cell(cell, row.seeds, f"{BOLD}{{}}{BOLD_END}")):
        lines = [" & ".join(_escaped(text) for text in line) + r" \\" for line in (head, *rows)]
        body = "\n".join([lines[0], r"\hline", *lines[1:]])
        blocks.append(f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}")
    return "\n\n".join([*blocks, f"% {_legend(table)}"]) + "\n"


Lines = list[list[str]]


def _blocks(table: Table, show: Callable[[Cell, Row], str]) -> Iterator[tuple[list[str], Lines]]:
    """Heading and lines of the table of figures, and of that of the differences from the baseline."""
    heads = [f"{column.name} {'↓' if column.better == 'lower' else '↑'}" for column in table.columns]
    lines = []
    for row in table.rows:
        seeds = str(row.finished) if row.complete else f"incomplete: {row.finished} of {row.seeds}"
        cells = [show(row.cells[column.name], row) for column in table.columns]
        lines.append([row.title, *cells, f"{row.training_calls:,}", seeds])
    yield ["variant", *heads, "training calls", "seeds"], lines
    tested = [column for column in table.columns if not column.exact]
    yield (
        [f"minus {table.title_of(table.baseline)}", *(column.name for column in tested)],
        [
            [row.title, *(shown_difference(row.cells[column.name]) for column in tested)]
            for row in table.rows
            if row.name != table.baseline
        ],
    )


def shown_difference(cell: Cell) -> str:
    """Paired difference with its interval, the relative gain, and the adjusted p or that there are too few seeds."""
    one = cell.against
    if one is None:
        return "–"
    interval = "" if one.interval is None else f" ({format_interval(one.interval)})"
    gain = "" if one.relative_gain is None else f", gain {one.relative_gain:+.1%}"
    p = ", underpowered" if one.p_adjusted is None else f", p = {one.p_adjusted:.2g}"
    return f"{'+' if one.difference > 0 else ''}{format_figure(one.difference, one.interval)}{interval}{gain}{p}"


MARKS: Mapping[str, str] = {"better": " (better)", "worse": " (worse)", "no difference shown": "", "underpowered": " †"}


def shown_cell(cell: Cell, seeds: int, bold: str = "{}") -> str:
    """Mean, half of its interval, whether it differs from the baseline, and of how many seeds, if not all."""
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
        f"{table.dataset}; mean ± half of the 95 % t-interval over seeds; (better), (worse): than {table.baseline}, "
        "paired by seed, Holm-corrected over the rows; (2x): twice its count; † underpowered, under six seeds; bold: "
        "better than every other row."
    )


BOLD, BOLD_END = "\x02", "\x03"
"""Marks that no title has, until LaTeX takes their place."""
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _escaped(text: str) -> str:
    plain = "".join(LATEX.get(character, character) for character in text)
    signs = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "†": r"$\dagger$"}
    signs |= {BOLD: r"\textbf{", BOLD_END: "}"}
    for sign, latex in signs.items():
        plain = plain.replace(sign, latex)
    return plain
