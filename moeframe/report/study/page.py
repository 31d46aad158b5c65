"""study.html: one self-contained page of a study, made from its folder alone, and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from moeframe.report.numbers import compact, format_figure
from moeframe.report.run.page import page_environment
from moeframe.report.study.comparison_table import started, table_of
from moeframe.report.study.curves import overtaking, without_curve
from moeframe.report.study.figures import headline, learning, of_variant, over_noise, samples, trade_offs
from moeframe.report.study.forest import forest
from moeframe.report.study.formats import (
    MARKS,
    facts,
    remove_table,
    shown_cell,
    shown_difference,
    shown_flops,
    write_table,
)
from moeframe.report.study.record import Evidence, by_noise, by_slice, evidence_of, refreshed
from moeframe.report.study.rows import Against, Cell, Column, Row, Table
from moeframe.report.study.run_records import RunRecords
from moeframe.report.study.sentences import said_of, sentences
from moeframe.report.study.styles import GROUP_TITLES, VariantStyles
from moeframe.report.study.verdicts import findings, leading_column
from moeframe.stats.comparison import COMPARED_FROM
from moeframe.storage.atomic import write_file
from moeframe.storage.study_folder import StudyFolder

ALPHA = 0.05
EVEN = 1e-6
"""Gate weights this close to 1/K are equal."""


def write_study(folder: Path) -> Table:
    """Update study.json from the runs, and write tables/ and study.html; the same runs give the same bytes.

    Raises RunFolderError where the folder holds no study or a damaged one.
    """
    complete_record, runs = refreshed(folder)
    record = started(complete_record)
    evidence = evidence_of(record, runs)
    record["variants"] = [{**one.facts, "averages": _averages(one)} for one in evidence]
    table, noise, slices = table_of(record), by_noise(record, evidence), by_slice(record, evidence)
    for name, each in (("study", table), ("noise_levels", noise), ("slices", slices)):
        if each.columns or each is table:
            write_table(folder, name, each)
        else:
            remove_table(folder, name)  # left by runs that had it
    found = findings(table)
    styles = VariantStyles.of(table, found)
    forests = [one for column in _tested(table) if (one := forest(table, column, styles)) is not None]
    sections = [
        samples(evidence),
        learning(table, evidence, styles),
        over_noise(table, evidence, styles),
        trade_offs(table, styles),
    ]
    per_variant = [(one.title, list(of_variant(k, one))) for k, one in enumerate(evidence)]
    page = (
        page_environment()
        .get_template("study.html.j2")
        .render(
            table=table,
            findings=found,
            headline=headline(table, styles),
            forests=forests,
            groups=[(group, GROUP_TITLES[group]) for group in styles.groups()],
            underpowered=[one for one, _ in said_of(table) if one.verdict == "underpowered"],
            powered=COMPARED_FROM,
            parts=[
                (title, words, each)
                for title, words, each in (
                    ("Likelihood by noise level", "Diffusion part of the bound, bits/dim, by range of log-SNR.", noise),
                    ("Likelihood by slice", "Bound of the same test images, bits/dim, by slice.", slices),
                )
                if each.columns
            ],
            differences=_differences(noise, slices),
            sentences=sentences(table),
            curves=overtaking(table, evidence),
            without_curve=without_curve(table, evidence),
            made=_made(record, runs),
            notes=facts(table),
            failures=[f"{row.title}, {failure}" for row in table.rows for failure in row.failures],
            changes=[(row["title"], row["changes"]) for row in record["variants"] if "changes" in row],
            shared=record.get("changes", []),
            sections=[section for section in sections if section.figures],
            per_variant=[(title, figures) for title, figures in per_variant if figures],
            titles={row.name: row.title for row in table.rows},
            complete=all(row.complete for row in table.rows),
            any_best=any(cell.best for row in table.rows for cell in row.cells.values()),
            shown_number=_shown_number,
            shown_mean=_shown_mean,
            shown_difference=shown_difference,
            shown_flops=shown_flops,
            hint=_hint,
            script=files("moeframe.report").joinpath("templates/page.js").read_text(encoding="utf-8"),
        )
    )
    write_file(StudyFolder(folder).page, page.encode())
    return table


def _averages(one: Evidence) -> bool:
    """Return whether the gate gave every expert the same weight at each noise level, in every seed."""
    found = [seed.diagnostics.gate_weights for seed in one.seeds]
    means = [weight for gate in found if gate is not None for weight in gate.mean]
    return bool(means) and all(
        len(weights) > 1 and max(abs(weight - 1 / len(weights)) for weight in weights) < EVEN for weights in means
    )


def _tested(table: Table) -> list[Column]:
    """Return the metrics of the forest plots: the leading one, then all others that vary over seeds."""
    lead = leading_column(table)
    others = [column for column in table.columns if not column.exact and column is not lead]
    return [lead, *others] if lead is not None else others


def _differences(*tables: Table) -> list[str]:
    """Return sentences on the parts of the bound that differ.

    Significant ones after Holm's correction over the rows and Bonferroni's over the parts; where seeds are too few for
    a test, those whose interval excludes zero.
    """
    n = sum(len(table.columns) for table in tables)
    compared = [found for table in tables for found in said_of(table)]
    if any(one.verdict != "underpowered" for one, _ in compared):
        return [said for one, said in compared if one.p_adjusted is not None and one.p_adjusted * n < ALPHA]
    return [said for one, said in compared if one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)]


def _made(record: Mapping[str, Any], runs: RunRecords) -> list[str]:
    """Return training steps, batch size, sampler and machine, as far as the folder records them."""
    return [*_settings([row for row in record["variants"] if "steps" in row]), *_machines(runs)]


def _settings(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for key, say in (("steps", "{:,} training steps"), ("batch_size", "batch size {}"), ("sampler", "sampler {}")):
        titles: dict[Any, list[str]] = {}
        for row in rows:
            titles.setdefault(row[key], []).append(row["title"])
        usual = max(titles, key=lambda value: len(titles[value]), default=None)
        others = [f"{', '.join(of)}: {value}" for value, of in titles.items() if value != usual]
        if usual is not None:
            yield say.format(usual) + (f" ({'; '.join(others)})" if others else "")


def _machines(runs: RunRecords) -> list[str]:
    devices = dict.fromkeys(str(run.environment.get("device_name", "")) for run in runs.values())
    return [f"on {', '.join(filter(None, devices))}"] if any(devices) else []


def _shown_mean(cell: Cell, _: Column, row: Row) -> str:
    return shown_cell(cell, row.seeds).replace(MARKS["underpowered"], "")


def _shown_number(cell: Cell, column: Column, _: Row) -> str:
    """Return the mean alone, as the first table of the page shows it."""
    if cell.mean is None:
        return "–"
    return compact(cell.mean) if column.exact else format_figure(cell.mean, cell.interval)


def _hint(cell: Cell, column: Column, row: Row, seeds: Sequence[int]) -> str:
    """Return all facts of a cell, as a text for hovering."""
    if cell.mean is None:
        return f"{row.title}, {column.title}: {cell.why_not}"
    lines = [f"{row.title}, {column.title}", f"mean over {cell.n_seeds} seeds: {cell.mean:.6g} {column.unit}"]
    lines += [] if cell.interval is None else [f"95 % t-interval: {cell.interval[0]:.6g} to {cell.interval[1]:.6g}"]
    lines += [cell.missing] if cell.missing else []
    lines += [f"minus the baseline: {shown_difference(cell.against)}", *_verdict(cell.against)] if cell.against else []
    values = zip(seeds, cell.per_seed, strict=True)
    return "\n".join([*lines, *(f"seed {seed}: {'–' if value is None else f'{value:.6g}'}" for seed, value in values)])


def _verdict(one: Against) -> list[str]:
    return [] if one.verdict == "underpowered" else [one.verdict]
