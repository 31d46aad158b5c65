"""The verdict of a run: its likelihood and sample quality, each beside the value that tells a reader what is good."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moeframe.report.numbers import format_figure, format_interval
from moeframe.storage.results import MetricResult, Results

REFERENCE, MATCHED = "real_against_real", "at_floor_n"
"""Parts of a distance: that between test and training images, and that of as many samples."""


@dataclass(frozen=True)
class Line:
    """One metric: its value with the interval, and what to hold it against."""

    claim: str
    numbers: tuple[str, ...]
    titles: str = ""


def verdict(results: Results, titles: Mapping[str, str]) -> list[Line]:
    """Return a line for the first metric of likelihood and the first of quality, or for the first metric of all."""
    measured = [(name, one) for name, one in results.metrics.items() if isinstance(one, MetricResult)]
    chosen = [next((found for found in measured if found[1].role == role), None) for role in ("likelihood", "quality")]
    found = [one for one in chosen if one is not None] or measured[:1]
    return [_line(titles[name], metric) for name, metric in found]


def _line(title: str, metric: MetricResult) -> Line:
    value = format_figure(metric.mean, metric.interval)
    claim = f"{value} {metric.unit}" if metric.unit == title else f"{title} {value}"
    if metric.interval is None:
        claim += ", no interval"
    else:
        claim += f" ({format_interval(metric.interval)}, 95\u00a0%)"
    return Line(claim, tuple(_beside(metric)))


def _beside(metric: MetricResult) -> Iterator[str]:
    """Yield what a reader compares the value with, as far as the metric records it."""
    levels = metric.how.get("levels")
    if metric.role == "likelihood" and metric.unit == "bits/dim" and isinstance(levels, int) and levels > 1:
        yield f"A uniform model needs log2({levels}) = {math.log2(levels):.3f} bits/dim."
    if REFERENCE in metric.parts:
        reference = format_figure(metric.parts[REFERENCE].mean)
        yield f"Train/test reference distance: {reference}."
        if MATCHED in metric.parts:
            yield f"At the N of the reference: {format_figure(metric.parts[MATCHED].mean)}."
