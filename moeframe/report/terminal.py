"""Tables for a terminal: metrics of a run, slices, a sweep, a study and its plan."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from moeframe.report.numbers import compact, format_figure, format_interval
from moeframe.report.run.trade_off import TradeOff
from moeframe.report.study.formats import shown_cell
from moeframe.report.study.rows import PlannedRun
from moeframe.report.study.rows import Table as StudyTable
from moeframe.report.titles import metric_titles
from moeframe.storage.results import Results, UnavailableResult

TITLE_WIDTH = 28
"""Characters of a variant's title; longer titles wrap."""

BORDERS = 3
"""Characters of a column beside its text."""


def terminal_table(results: Results) -> Table:
    """Return one row per metric: value, interval, unit and direction."""
    table = Table(title=f"{results.name}, {len(results.seeds)} seed{'s' if len(results.seeds) > 1 else ''}")
    for column in ("metric", "value", "95 % interval", "unit", "better"):
        table.add_column(column, justify="right" if column in ("value", "95 % interval") else "left")
    titles = _titles(results)
    for name, metric in results.metrics.items():
        if isinstance(metric, UnavailableResult):
            table.add_row(titles[name], "-", "", f"unavailable: {metric.unavailable}", "")
        else:
            interval = format_interval(metric.interval) if metric.interval else ""
            table.add_row(
                titles[name], format_figure(metric.mean, metric.interval), interval, metric.unit, metric.better
            )
    return table


def cautions(results: Results) -> list[str]:
    """Return the caution of each metric that has one."""
    titles = _titles(results)
    found = ((name, metric) for name, metric in results.metrics.items() if not isinstance(metric, UnavailableResult))
    return [f"{titles[name]}: {metric.caution}" for name, metric in found if metric.caution]


def _titles(results: Results) -> dict[str, str]:
    return metric_titles({name: getattr(metric, "unit", "") for name, metric in results.metrics.items()})


def slice_table(names: Sequence[str], train: Sequence[int], test: Sequence[int]) -> Table:
    """Return one row per slice: sizes in both splits and the share of the training split."""
    table = Table(title="slices")
    for column in ("slice", "content", "training images", "share", "test images"):
        table.add_column(column, justify="left" if column == "content" else "right")
    for k, name in enumerate(names):
        table.add_row(str(k), name, f"{train[k]:,}", f"{train[k] / sum(train):.1%}", f"{test[k]:,}")
    return table


def sweep_table(sweep: TradeOff) -> Table:
    """Return one row per point of a sweep; a star marks the Pareto front."""
    table = Table(title="likelihood against quality by switch point")
    for column in ("model", "η (log-SNR)", "bits/dim", "± s.e.", sweep.quality_name, "Pareto"):
        table.add_column(column, justify="left" if column in ("model", "Pareto") else "right")
    for point in sweep.points:
        table.add_row(
            point.name,
            "-" if point.eta is None else f"{point.eta:.3f}",
            f"{point.bits_per_dim:.4f}",
            f"{point.standard_error:.4f}",
            "-" if point.quality is None else format_figure(point.quality, point.quality_interval),
            "*" if point.pareto else "",
        )
    return table


def study_tables(study: StudyTable, width: int) -> list[Table]:
    """Return one row per variant with the mean of each metric ± half its interval; marks as in tables/study.md.

    Columns that do not fit in `width` characters go to further tables.
    """
    titles = [row.title for row in study.rows]
    columns = [
        (column.title, [shown_cell(row.cells[column.name], row.seeds) for row in study.rows])
        for column in study.columns
    ]
    columns.append(("seeds", [f"{row.finished}/{row.seeds}" for row in study.rows]))
    widest = min(TITLE_WIDTH, max(map(len, titles)))
    blocks: list[list[tuple[str, list[str]]]] = []
    left = 0
    for name, cells in columns:
        needed = max(map(len, [name, *cells])) + BORDERS
        if needed > left:
            blocks.append([])
            left = width - widest - BORDERS - 1
        blocks[-1].append((name, cells))
        left -= needed
    found = []
    for k, block in enumerate(blocks):
        table = Table(
            title=f"{study.name}: {study.dataset}, compared with {study.title_of(study.baseline)}" if k == 0 else None
        )
        table.add_column("variant", max_width=widest)
        for name, _ in block:
            table.add_column(name, justify="right", no_wrap=True)
        for title, *cells in zip(titles, *(cells for _, cells in block), strict=True):
            table.add_row(title, *cells)
        found.append(table)
    return found


def plan_table(runs: Sequence[PlannedRun]) -> Table:
    """Return the runs of a study, one row per variant and status, with the total of the runs that remain."""
    finished = sum(run.status == "finished" for run in runs)
    title = f"{len(runs)} runs, {finished} finished; training cost per run, sampling cost per image"
    table = Table(title=title, caption=_remaining(runs), box=box.SIMPLE, pad_edge=False, padding=0)
    table.add_column("variant", no_wrap=True)
    table.add_column("seeds")
    table.add_column("status", no_wrap=True)
    for column in ("training\ncalls", "training\nFLOPs", "sampling\ncalls", "minutes"):
        table.add_column(column, justify="right", no_wrap=True)
    alike: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        alike.setdefault((run.variant, run.status), []).append(run)
    for (variant, status), of in alike.items():
        minutes = "" if of[0].seconds is None else f"~{of[0].seconds / 60:.1f}"
        flops = "" if of[0].training_flops is None else f"{of[0].training_flops:.1e}"
        calls = (compact(float(of[0].training_calls)), flops, f"≤ {compact(float(of[0].sampling_calls))}")
        table.add_row(variant, _ranges([run.seed for run in of]), status, *calls, minutes)
    return table


def plan_notes(runs: Sequence[PlannedRun]) -> list[str]:
    """Return why runs failed, which metrics are missing, or which settings changed."""
    alike: dict[tuple[str, str, str], list[int]] = {}
    for run in runs:
        if run.cause:
            alike.setdefault((run.variant, run.status, run.cause), []).append(run.seed)
    return [
        f"{variant}, seed{'s' if len(seeds) > 1 else ''} {_ranges(seeds)}: {status}: {cause}"
        for (variant, status, cause), seeds in alike.items()
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """Format numbers as ranges, such as `0-2, 5`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{of[0]}-{of[-1]}" if len(of) > 2 else ", ".join(map(str, of)) for of in found)


def _remaining(runs: Sequence[PlannedRun]) -> str:
    """Return the total cost of the runs that remain, as far as it is known."""
    left = [run for run in runs if run.status in ("failed", "to do")]
    flops = [run.training_flops for run in left if run.training_flops is not None]
    seconds = [run.seconds for run in left if run.seconds is not None]
    known = [f"{sum(flops):.3g} FLOPs of training"] if len(flops) == len(left) > 0 else []
    known += [f"about {sum(seconds) / 3600:.1f} hours if run one by one"] if len(seconds) == len(left) > 0 else []
    return f"To do: {', '.join(known)}" if known else ""
