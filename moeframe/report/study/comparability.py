"""Whether two values of a metric were measured alike, and the caution that belongs to a metric."""

import re
import statistics
from collections.abc import Mapping
from typing import Any

from moeframe.report.numbers import format_figure
from moeframe.report.study.rows import Column
from moeframe.report.titles import key_title, without_keys

BASIS = (
    *("method", "log_snr_range", "levels", "images", "chosen", "steps", "dequantisation"),  # likelihoods
    *("samples", "against", "splits", "weights_sha256", "preprocessing"),  # samples
    *("from_log_snr", "pairs"),  # reconstructions
)
"""Settings of a measurement that must agree, where both values record them, for two values to be compared."""
MACHINE = ("device", "device_name", "torch_threads", "batch_size")
"""Facts of the machine that must agree within a seed for times and memory to be compared."""


def basis_of(metric: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a measurement that must agree for values to be compared."""
    how = metric.get("how", {})
    return {key: how[key] for key in BASIS if key in how}


def why_not_comparable(run: Mapping[str, Any], column: Column, record: Mapping[str, Any]) -> str:
    """Return why a value cannot be compared with the others of its column; empty if it can."""
    metric = run["metrics"].get(column.name, {})
    if metric.get("unit", column.unit) != column.unit:
        return f"different unit: {metric['unit']}"
    own, beside = basis_of(metric), _of_baseline(record, run["seed"]).get(column.name, {})
    words = [*_unlike(own, column.basis), *_unlike(_machine(metric), _machine(beside))]
    return f"measured with different settings: {'; '.join(words)}" if words else ""


def _unlike(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ. Without a record of which images were chosen, only "all" counts as equal."""
    unlike = [key for key in own if own[key] != other.get(key, own[key])]
    chosen = [str(side["chosen"]) for side in (own, other) if "chosen" in side]
    if len(chosen) == 1 and not chosen[0].startswith("all "):
        unlike.append("chosen")
    return [f"{key_title(key)} {own.get(key, 'not recorded')} vs {other.get(key, 'not recorded')}" for key in unlike]


def _machine(metric: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the machine, for a metric that records them."""
    how = metric.get("how", {})
    return {key: how[key] for key in MACHINE if key in how} if "device_name" in how else {}


def _of_baseline(record: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """Return the metrics of the baseline for that seed."""
    runs = (run for row in record["variants"] if row["name"] == record["baseline"] for run in row["runs"])
    return next((run["metrics"] for run in runs if run["seed"] == seed), {})


def caution_of(column: Column, record: Mapping[str, Any]) -> str:
    """Return the caution that the metric records, and its value for real images."""
    found = [run["metrics"].get(column.name, {}) for row in record["variants"] for run in row["runs"]]
    said = dict.fromkeys(metric["how"]["caution"] for metric in found if metric.get("how", {}).get("caution"))
    texts = [without_keys(text) for text in said]
    return "; ".join([*texts, *_floor([metric for metric in found if "real_against_real" in metric.get("parts", {})])])


def _floor(found: list[Mapping[str, Any]]) -> list[str]:
    """Return the train/test reference distance, with its number of images: fewer images alone score worse."""
    if not found:
        return []
    value = format_figure(statistics.mean(metric["parts"]["real_against_real"]["mean"] for metric in found))
    how = str(found[0].get("how", {}).get("real_against_real", "")).split(":")[0]
    sizes, n = [int(size) for size in re.findall(r"against (\d+)", how)], found[0].get("n")
    fewer = f", not a floor at N = {n}" if sizes and n is not None and sizes[0] < n else ""
    return [f"train/test reference distance {value}, mean over seeds{f' ({how})' if how else ''}{fewer}"]
