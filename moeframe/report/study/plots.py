"""The plots of a study over all its variants; pointing at a mark shows its values."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moeframe.report.drawing import NOISE_AXIS, QUIET, WIDE, WIDTH, Hints, Record, draw
from moeframe.report.labels import Box, box_of, label_ends, label_points, wrapped
from moeframe.report.numbers import format_figure, format_interval
from moeframe.report.study.styles import VariantStyles
from moeframe.stats.intervals import mean, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Mark(Record):
    """A mean over seeds with its t-interval; None where there are too few seeds."""

    mean: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mark":
        """From one value per seed."""
        return cls(mean=mean(values), interval=t_interval(values))

    @property
    def shown(self) -> str:
        """Return the mean with its interval."""
        interval = f" ({format_interval(self.interval)})" if self.interval else ""
        return f"{format_figure(self.mean, self.interval)}{interval}"


class Point(Record):
    """A variant in the plane of two metrics."""

    name: str
    title: str
    x: Mark
    y: Mark


class Line(Record):
    """A variant along an axis: means over seeds with their intervals."""

    name: str
    title: str
    points: list[tuple[float, Mark]]


class Axis(Record):
    """What an axis shows."""

    label: str
    log: bool = False


NOISE = Axis(label=NOISE_AXIS)


def both_widths(draw_one: Any, name: str) -> str:
    """Draw a plot twice, for a desktop and for a phone; style.css shows one of them. A phone has no hover texts."""
    wide, narrow = draw_one(name, wide=True), draw_one(f"{name}-narrow", wide=False)
    narrow = re.sub(r'<use class="hint" ([^>]*)><title>[^<]*</title></use>', r"<use \1/>", narrow)
    return f'<div class="on-desktop">{wide}</div><div class="on-phone">{narrow}</div>'


def scatter(
    name: str, title: str, points: Sequence[Point], x: Axis, y: Axis, styles: VariantStyles, *, wide: bool = False
) -> str:
    """Draw every variant as a mark with its intervals; labelled variants have their group's colour, others are grey."""

    def paint(axes: "Axes") -> Hints:
        hints = {}
        for k, point in enumerate(points):
            style = styles.style(point.name)
            axes.errorbar(
                point.x.mean,
                point.y.mean,
                xerr=_reach(point.x),
                yerr=_reach(point.y),
                linestyle="none",
                color=style.colour,
                elinewidth=1.1 if style.labelled else 0.7,
                alpha=0.75 if style.labelled else 0.35,
                zorder=3 if style.labelled else 2,
            )
            [mark] = axes.plot(
                point.x.mean,
                point.y.mean,
                marker=style.marker,
                color=style.colour,
                markersize=6.5 if style.labelled else 4.5,
                linestyle="none",
                zorder=5 if style.labelled else 4,
            )
            mark.set_gid(f"point-{k}")
            hints[f"point-{k}"] = f"{point.title}\n{x.label}: {point.x.shown}\n{y.label}: {point.y.shown}"
        _label(axes, x, y)
        axes.margins(0.06)
        axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
        order = {each: k for k, each in enumerate(styles.labelled)}
        shown = sorted((point for point in points if point.name in order), key=lambda point: order[point.name])
        label_points(
            axes,
            [(p.x.mean, p.y.mean, wrapped(p.title, 30 if wide else 20), styles.style(p.name).colour) for p in shown],
            [box for point in points for box in _boxes(axes, point, own=point.name in order)],
        )
        return hints

    return draw(name, title, paint, 4.5 if wide else 4.4, WIDE if wide else WIDTH)


def _boxes(axes: "Axes", point: Point, *, own: bool) -> list[Box]:
    """Return the boxes that a label should not hide: the mark, and the intervals of labelled points."""
    found = [box_of(axes, (point.x.mean, point.x.mean), (point.y.mean, point.y.mean), 5.0 if own else 3.5)]
    if own and point.x.interval:
        found.append(box_of(axes, point.x.interval, (point.y.mean, point.y.mean), 1.0))
    if own and point.y.interval:
        found.append(box_of(axes, (point.x.mean, point.x.mean), point.y.interval, 1.0))
    return found


def lines(
    name: str,
    title: str,
    curves: Sequence[Line],
    x: Axis,
    y: Axis,
    styles: VariantStyles,
    level: float | None = None,
    *,
    wide: bool = False,
) -> str:
    """Draw every variant as a line; labelled ones in the band of their intervals, a reference level dashed."""

    def paint(axes: "Axes") -> Hints:
        hints = {}
        ends = []
        for k, curve in enumerate(curves):
            style = styles.style(curve.name)
            across, marks = zip(*curve.points, strict=True)
            inside = [(a, *mark.interval) for a, mark in curve.points if mark.interval is not None]
            if inside and style.labelled:
                at, low, high = zip(*inside, strict=True)
                axes.fill_between(at, low, high, color=style.colour, alpha=0.1, linewidth=0, zorder=1)
            [line] = axes.plot(
                across,
                [mark.mean for mark in marks],
                color=style.colour,
                marker=style.marker,
                markersize=3,
                linestyle=style.dashes,
                linewidth=1.5 if style.labelled else 0.8,
                alpha=1.0 if style.labelled else 0.6,
                zorder=4 if style.labelled else 2,
            )
            line.set_gid(f"line-{k}")
            said = [f"{x.label}: {format_figure(a)}\n{y.label}: {mark.shown}" for a, mark in curve.points]
            hints[f"line-{k}"] = [curve.title, *(f"{curve.title}\n{each}" for each in said)]
            if style.labelled:
                ends.append((across[-1], marks[-1].mean, wrapped(curve.title, 26 if wide else 17), style.colour))
        if level is not None:
            axes.axhline(level, color=QUIET, linestyle="--", linewidth=1.0)
        _label(axes, x, y)
        axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
        label_ends(axes, ends)
        return hints

    return draw(name, title, paint, 4.2 if wide else 4.4, WIDE if wide else WIDTH)


def _reach(mark: Mark) -> Any:
    # Any: numpy's array type says no more to a reader
    return None if mark.interval is None else np.array([[mark.mean - mark.interval[0]], [mark.interval[1] - mark.mean]])


def _label(axes: "Axes", x: Axis, y: Axis) -> None:
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    if x.log:
        _log_scale(axes)


def _log_scale(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers at ones, twos and fives."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
