"""The table of a study, computed from its record: one row per variant, one column per metric."""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeframe.interfaces.metric import Better
from moeframe.report.study.comparability import basis_of, caution_of, why_not_comparable
from moeframe.report.study.costs import training_flops
from moeframe.report.study.rows import Against, Cell, Column, Group, Pair, Row, Table
from moeframe.report.titles import metric_titles
from moeframe.stats.comparison import Comparison, adjust, compare_all, compare_paired, relative_gain
from moeframe.stats.intervals import summarise

ACTIVE = "active_per_sample"
"""A part of a metric that becomes a column of its own: comparisons at equal cost need active parameters too."""
EXACT = 1e-9
NO_RATIOS = ("dB", "KID", "squared MMD")
"""Prefixes of units without meaningful ratios: logarithms, and estimates that may be zero by chance."""


def started(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return study.json without the seeds and variants that have no run yet; `not_run` lists those variants.

    A variant that lacks a seed of another variant is incomplete; a seed that no variant has run is left out.
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
    """Return the table of study.json: means with t-intervals over seeds, differences from the baseline paired by seed.

    Holm's correction covers the rows of one metric. A row with missing seeds reports the mean over those it has.
    `costs` maps names to the rows that hold training costs, where those of the record hold other metrics.
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
            group=row.get("group") or _group(row),
            n_experts=row.get("n_experts", 1),
            weights_of=row.get("weights_of"),
            averages=row.get("averages", False),
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


def _group(row: Mapping[str, Any]) -> Group:
    """Return the group of a variant whose study file names none."""
    if row.get("n_experts", 1) == 1:
        return "control"
    return "ablation" if row.get("weights_of") else "mixture"


def _with_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with the parts that become columns as metrics of their own."""
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
    titles = metric_titles({name: metric["unit"] for name, metric in found.items()})
    columns = [
        Column(
            name=name,
            title=titles[name],
            unit=metric["unit"],
            better=metric["better"],
            role=metric.get("role", "other"),
            basis=basis_of(metric),
        )
        for name, metric in found.items()
    ]
    return [
        column.model_copy(update={"exact": _is_exact(column, record), "caution": caution_of(column, record)})
        for column in columns
    ]


def _not_measured(record: Mapping[str, Any], columns: list[Column]) -> dict[str, str]:
    """Return the requested metrics that no run has, by title, and why."""
    found: dict[str, dict[str, None]] = {}
    for row in record["variants"]:
        for run in row["runs"]:
            for name, metric in run["metrics"].items():
                if "unavailable" in metric:
                    found.setdefault(name, {})[metric["unavailable"]] = None
    known = {column.name for column in columns}
    titles = metric_titles(dict.fromkeys(found, ""))
    return {titles[name]: "; ".join(reasons) for name, reasons in found.items() if name not in known}


def _is_exact(column: Column, record: Mapping[str, Any]) -> bool:
    """Return whether no row varies over its seeds, where some row has several."""
    rows = [[value for value in _per_seed(row, column, record) if value is not None] for row in record["variants"]]
    return any(len(row) > 1 for row in rows) and all(
        max(row) - min(row) <= EXACT * abs(max(row)) for row in rows if row
    )


def _per_seed(row: Mapping[str, Any], column: Column, record: Mapping[str, Any]) -> list[float | None]:
    """Return one value per seed; None if it was not measured, or with other settings (say another feature space)."""
    return [
        run["metrics"].get(column.name, {}).get("mean") if not why_not_comparable(run, column, record) else None
        for run in row["runs"]
    ]


def _cells(column: Column, values: Mapping[str, list[float | None]], record: Mapping[str, Any]) -> dict[str, Cell]:
    own = _own_runs(record)
    baseline = own[record["baseline"]]  # a variant that repeats another adds no comparison
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
            missing=_missing(row, values[name], column, record),
            ratio=means[name] / means[baseline] if column.exact and means.get(baseline) else None,
            best=name == best,
            against=None if one is None else _against(one, values[name], values[baseline], column),
        )
    return {name: cells[source] for name, source in own.items()}


def _own_runs(record: Mapping[str, Any]) -> dict[str, str]:
    """Map each variant to the one whose runs it shows: itself, or the variant that it repeats."""
    names = {row["name"] for row in record["variants"]}
    sources = {row["name"]: row.get("same_as") for row in record["variants"]}
    return {name: source if source in names else name for name, source in sources.items()}


def _against(one: Comparison, own: list[float | None], other: list[float | None], column: Column) -> Against:
    gain = relative_gain(own, other, column.better)
    if column.unit.startswith(NO_RATIOS):
        reason = f"none: ratios of {column.unit} are meaningless"
        gain = dataclasses.replace(gain, value=None, interval=None, method=reason)
    elif gain.interval is not None:  # Fieller's interval may reach ratios below zero, which no value can
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
    """Compare the pairs of the study, with Holm's correction over them per metric; equal pairs count once."""
    pairs = [(first, second) for first, second in compare if own[first] != own[second]]
    found: dict[tuple[str, str], dict[str, Against]] = {pair: {} for pair in pairs}
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
    """Return the row that significantly beats every other one, or None."""
    if len(values) < 2:
        return None
    for name, own in values.items():
        paired = [
            any(a is not None and b is not None for a, b in zip(own, other, strict=True)) for other in values.values()
        ]
        if all(paired) and all(one.verdict == "worse" for one in compare_all(values, name, better).values()):
            return name
    return None


def _missing(row: Mapping[str, Any], values: list[float | None], column: Column, record: Mapping[str, Any]) -> str:
    """Return which finished runs lack the value, and why. Failed runs are listed with their row."""
    pairs = zip(row["runs"], values, strict=True)
    runs = [run for run, value in pairs if value is None and run["status"] == "finished"]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"seed{'s' if len(runs) > 1 else ''} {seeds}: {_why_not(runs, column, record)}" if runs else ""


def _why_not(runs: Sequence[Mapping[str, Any]], column: Column, record: Mapping[str, Any]) -> str:
    found = [run["metrics"].get(column.name, {}) for run in runs]
    others = [
        why_not_comparable(run, column, record) for run, metric in zip(runs, found, strict=True) if "mean" in metric
    ]
    unavailable = [metric.get("unavailable") or run["cause"] for metric, run in zip(found, runs, strict=True)]
    reasons = list(dict.fromkeys(reason for reason in [*others, *unavailable] if reason))
    finished = any(run["status"] == "finished" for run in runs)
    return "; ".join(reasons) or ("not measured" if finished else "not run yet")
