"""The table of a study, from its record: rows are variants, columns metrics, each cell with what the seeds support."""

import dataclasses
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeframe.report.numbers import format_figure
from moeframe.report.study.costs import training_flops
from moeframe.report.study.rows import Against, Better, Cell, Column, Pair, Row, Table
from moeframe.stats.comparison import Comparison, adjust, compare_all, compare_paired, relative_gain
from moeframe.stats.intervals import summarise

ACTIVE = "active_per_sample"
"""A part of `parameters` that a comparison at equal cost needs beside the whole."""
EXACT = 1e-9
NO_RATIOS = ("dB", "KID", "squared MMD")
"""Beginnings of units that are logarithms, or differences whose zero is met by chance."""
BASIS = (
    *("method", "log_snr_range", "levels", "images", "chosen", "steps", "dequantisation"),  # likelihoods
    *("samples", "against", "splits", "weights_sha256", "preprocessing"),  # samples
    *("from_log_snr", "pairs"),  # reconstructions
)
"""What two figures must have been computed with alike to be compared, where both say it."""
MACHINE = ("device", "device_name", "torch_threads", "batch_size")
"""What times and memory of one seed must have been measured on alike; another seed may be of another machine."""


def begun(record: Mapping[str, Any]) -> dict[str, Any]:
    """study.json without the seeds of which nothing was tried yet, and without such variants, which it names.

    What is left is what a table can be about: a variant that lacks a seed that another has is incomplete, one that
    awaits its turn with all others is not.
    """
    tried = {run["seed"] for row in record["variants"] for run in row["runs"] if run["status"] != "to do"}
    tried = tried or set(record["seeds"])
    rows, waiting = [], []
    for row in record["variants"]:
        runs = [run for run in row["runs"] if run["seed"] in tried]
        if row["name"] == record["baseline"] or any(run["status"] != "to do" for run in runs):
            rows.append({**row, "runs": runs})
        else:
            waiting.append(row["title"])
    shown = {row["name"] for row in rows}
    return {
        **record,
        "variants": rows,
        "seeds": [seed for seed in record["seeds"] if seed in tried],
        "planned_seeds": len(record["seeds"]),
        "compare": [pair for pair in record.get("compare", []) if set(pair) <= shown],
        "not_run": waiting,
    }


def table_of(record: Mapping[str, Any], costs: Mapping[str, Mapping[str, Any]] | None = None) -> Table:
    """The table of study.json: means and t-intervals over seeds, differences from the baseline paired by seed.

    Holm's correction is over the rows of a metric. A row that lacks seeds says so; its mean is over those it has.
    `costs` are the rows by name that say what training took, where those of the record hold other figures.
    """
    by_name = costs or {row["name"]: row for row in record["variants"]}
    record = {**record, "variants": [_with_parts(row) for row in record["variants"]]}
    columns = _columns(record)
    values = {
        column.name: {row["name"]: _per_seed(row, column, record) for row in record["variants"]} for column in columns
    }
    cells = {column.name: _cells(column, values[column.name], record) for column in columns}
    rows = [
        Row(
            name=row["name"],
            title=row["title"],
            finished=sum(run["status"] == "finished" for run in row["runs"]),
            seeds=len(row["runs"]),
            failures=[f"seed {run['seed']}: {run['cause']}" for run in row["runs"] if run["cause"]],
            training_calls=row["training_calls"],
            training_flops=training_flops(by_name[row["name"]], by_name) if "n_experts" in row else None,
            cells={column.name: cells[column.name][row["name"]] for column in columns},
        )
        for row in record["variants"]
    ]
    return Table(
        name=record["name"],
        dataset=record["dataset"],
        baseline=record["baseline"],
        columns=columns,
        rows=rows,
        pairs=_pairs(columns, values, record.get("compare", []), _own_runs(record)),
        seeds=record["seeds"],
        planned_seeds=record.get("planned_seeds", len(record["seeds"])),
        not_run=record.get("not_run", []),
        not_measured=_not_measured(record, columns),
    )


def _with_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, its metrics' parts that are columns of their own among the metrics."""
    return {**row, "runs": [{**run, "metrics": dict(_measured(run["metrics"]))} for run in row["runs"]]}


def _measured(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, metric in metrics.items():
        yield name, metric
        if ACTIVE in metric.get("parts", {}):
            yield f"{name}, active", {**metric, "mean": metric["parts"][ACTIVE]["mean"], "parts": {}}


def _columns(record: Mapping[str, Any]) -> list[Column]:
    found: dict[str, Mapping[str, Any]] = {}
    rows = sorted(record["variants"], key=lambda row: row["name"] != record["baseline"])
    for row in rows:
        for run in row["runs"]:
            for name, metric in run["metrics"].items():
                if name not in found and "mean" in metric:
                    found[name] = metric
    columns = [
        Column(name=name, unit=metric["unit"], better=metric["better"], basis=_basis(metric))
        for name, metric in found.items()
    ]
    return [
        column.model_copy(update={"exact": _is_exact(column, record), "caution": _caution(column, record)})
        for column in columns
    ]


def _not_measured(record: Mapping[str, Any], columns: list[Column]) -> dict[str, str]:
    """Metrics that were asked for and that no run has, and why."""
    found: dict[str, dict[str, None]] = {}
    for row in record["variants"]:
        for run in row["runs"]:
            for name, metric in run["metrics"].items():
                if "unavailable" in metric:
                    found.setdefault(name, {})[metric["unavailable"]] = None
    known = {column.name for column in columns}
    return {name: "; ".join(reasons) for name, reasons in found.items() if name not in known}


def _basis(metric: Mapping[str, Any]) -> dict[str, Any]:
    how = metric.get("how", {})
    return {key: how[key] for key in BASIS if key in how}


def _caution(column: Column, record: Mapping[str, Any]) -> str:
    """What the metric says of itself, and what real images score."""
    found = [run["metrics"].get(column.name, {}) for row in record["variants"] for run in row["runs"]]
    said = dict.fromkeys(metric["how"]["caution"] for metric in found if metric.get("how", {}).get("caution"))
    return "; ".join([*said, *_floor([metric for metric in found if "real_against_real" in metric.get("parts", {})])])


def _floor(found: list[Mapping[str, Any]]) -> list[str]:
    """What real images score, and of how many: fewer than the samples score worse for that alone."""
    if not found:
        return []
    value = format_figure(statistics.mean(metric["parts"]["real_against_real"]["mean"] for metric in found))
    how = str(found[0].get("how", {}).get("real_against_real", "")).split(":")[0]
    sizes, n = [int(size) for size in re.findall(r"against (\d+)", how)], found[0].get("n")
    fewer = f", so it is no floor at N = {n}" if sizes and n is not None and sizes[0] < n else ""
    return [f"real images score {value}, the mean over seeds{f' ({how})' if how else ''}{fewer}"]


def _is_exact(column: Column, record: Mapping[str, Any]) -> bool:
    """Whether no row differs between its seeds, of which some row has several."""
    rows = [[value for value in _per_seed(row, column, record) if value is not None] for row in record["variants"]]
    return any(len(row) > 1 for row in rows) and all(
        max(row) - min(row) <= EXACT * abs(max(row)) for row in rows if row
    )


def _per_seed(row: Mapping[str, Any], column: Column, record: Mapping[str, Any]) -> list[float | None]:
    """The figure of each seed; None where it was not measured, or otherwise: in another feature space, say."""
    return [
        run["metrics"].get(column.name, {}).get("mean") if not _otherwise(run, column, record) else None
        for run in row["runs"]
    ]


def _otherwise(run: Mapping[str, Any], column: Column, record: Mapping[str, Any]) -> str:
    """In what a figure differs from the others of its column, so that it cannot be compared; empty if in nothing."""
    metric = run["metrics"].get(column.name, {})
    if metric.get("unit", column.unit) != column.unit:
        return f"measured in another unit: {metric['unit']}"
    own, beside = _basis(metric), _of_baseline(record, run["seed"]).get(column.name, {})
    words = [*_unlike(own, column.basis), *_unlike(_machine(metric), _machine(beside))]
    return f"measured otherwise: {'; '.join(words)}" if words else ""


def _unlike(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What both say and say differently. Which images were chosen a version left unsaid: the same only if it is all."""
    unlike = [key for key in own if own[key] != other.get(key, own[key])]
    chosen = [str(side["chosen"]) for side in (own, other) if "chosen" in side]
    if len(chosen) == 1 and not chosen[0].startswith("all "):
        unlike.append("chosen")
    return [f"{key} {own.get(key, 'unsaid')}, not {other.get(key, 'unsaid')}" for key in unlike]


def _machine(metric: Mapping[str, Any]) -> dict[str, Any]:
    """Of a metric that looks at it."""
    how = metric.get("how", {})
    return {key: how[key] for key in MACHINE if key in how} if "device_name" in how else {}


def _of_baseline(record: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """The baseline's metrics of that seed."""
    runs = (run for row in record["variants"] if row["name"] == record["baseline"] for run in row["runs"])
    return next((run["metrics"] for run in runs if run["seed"] == seed), {})


def _cells(column: Column, values: Mapping[str, list[float | None]], record: Mapping[str, Any]) -> dict[str, Cell]:
    own = _own_runs(record)
    baseline = own[record["baseline"]]  # a variant that repeats another is no further comparison
    measured = {
        name: seeds for name, seeds in values.items() if own[name] == name and any(value is not None for value in seeds)
    }
    comparable = {
        name: seeds
        for name, seeds in measured.items()
        if any(a is not None and b is not None for a, b in zip(seeds, values[baseline], strict=True))
    }
    tested = baseline in comparable and not column.exact
    compared = compare_all(comparable, baseline, column.better) if tested else {}
    best = None if column.exact else _best(comparable, column.better)
    means = {name: statistics.mean(v for v in seeds if v is not None) for name, seeds in measured.items()}
    cells = {}
    for row in record["variants"]:
        name = row["name"]
        if own[name] != name:
            continue
        if name not in measured:
            cells[name] = Cell(why_not=_why_not(row["runs"], column, record))
            continue
        known = [value for value in values[name] if value is not None]
        summary, one = summarise(known), compared.get(name)
        cells[name] = Cell(
            mean=summary.mean,
            interval=summary.interval,
            n_seeds=len(known),
            per_seed=tuple(values[name]),
            lacks=_lacks(row, values[name], column, record),
            ratio=means[name] / means[baseline] if column.exact and means.get(baseline) else None,
            best=name == best,
            against=None if one is None else _against(one, values[name], values[baseline], column),
        )
    return {name: cells[source] for name, source in own.items()}


def _own_runs(record: Mapping[str, Any]) -> dict[str, str]:
    """Of each variant the one whose runs it shows: itself, or the one that it repeats."""
    names = {row["name"] for row in record["variants"]}
    sources = {row["name"]: row.get("same_as") for row in record["variants"]}
    return {name: source if source in names else name for name, source in sources.items()}


def _against(one: Comparison, own: list[float | None], other: list[float | None], column: Column) -> Against:
    gain = relative_gain(own, other, column.better)
    if column.unit.startswith(NO_RATIOS):
        reason = f"none: a ratio of {column.unit} means nothing"
        gain = dataclasses.replace(gain, value=None, interval=None, method=reason)
    elif gain.interval is not None:  # Fieller's may hold ratios below zero, which no figure that has ratios reaches
        low, high = gain.interval
        ends = (low, min(high, 1.0)) if column.better == "lower" else (max(low, -1.0), high)
        gain = dataclasses.replace(gain, interval=ends)
    return Against(
        difference=one.mean_difference,
        interval=one.interval,
        p_adjusted=one.p_adjusted,
        verdict=one.verdict,
        relative_gain=gain.value,
        gain_interval=gain.interval,
        gain_method=gain.method,
        n=one.n,
        of=len(own),
    )


def _pairs(
    columns: list[Column],
    values: Mapping[str, Mapping[str, list[float | None]]],
    compare: list[list[str]],
    own: Mapping[str, str],
) -> list[Pair]:
    """The pairs that the study asks for, Holm's correction over them in each metric; equal pairs count once."""
    asked = [(first, second) for first, second in compare if own[first] != own[second]]
    found: dict[tuple[str, str], dict[str, Against]] = {pair: {} for pair in asked}
    for column in columns:
        figures = values[column.name]
        possible = {
            f"{own[first]} {own[second]}": (figures[first], figures[second])
            for first, second in found
            if not column.exact
            and any(a is not None and b is not None for a, b in zip(figures[first], figures[second], strict=True))
        }
        compared = adjust({key: compare_paired(*pair, column.better) for key, pair in possible.items()})
        for first, second in found:
            key = f"{own[first]} {own[second]}"
            if key in compared:
                found[first, second][column.name] = _against(compared[key], *possible[key], column)
    return [Pair(first=first, second=second, against=against) for (first, second), against in found.items()]


def _best(values: Mapping[str, list[float | None]], better: Better) -> str | None:
    """The row that beats every other by the paired test; None where none does."""
    if len(values) < 2:
        return None
    for name, own in values.items():
        paired = [
            any(a is not None and b is not None for a, b in zip(own, other, strict=True)) for other in values.values()
        ]
        if all(paired) and all(one.verdict == "worse" for one in compare_all(values, name, better).values()):
            return name
    return None


def _lacks(row: Mapping[str, Any], values: list[float | None], column: Column, record: Mapping[str, Any]) -> str:
    """Which finished runs have no figure although others of the row do, and why; of the others the row says it."""
    pairs = zip(row["runs"], values, strict=True)
    runs = [run for run, value in pairs if value is None and run["status"] == "finished"]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"seed{'s' if len(runs) > 1 else ''} {seeds}: {_why_not(runs, column, record)}" if runs else ""


def _why_not(runs: Sequence[Mapping[str, Any]], column: Column, record: Mapping[str, Any]) -> str:
    found = [run["metrics"].get(column.name, {}) for run in runs]
    others = [_otherwise(run, column, record) for run, metric in zip(runs, found, strict=True) if "mean" in metric]
    unavailable = [metric.get("unavailable") or run["cause"] for metric, run in zip(found, runs, strict=True)]
    reasons = list(dict.fromkeys(reason for reason in [*others, *unavailable] if reason))
    finished = any(run["status"] == "finished" for run in runs)
    return "; ".join(reasons) or ("not measured" if finished else "not run yet")
