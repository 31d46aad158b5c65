"""The plots of a study over all its variants; a reader who points at a mark sees its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moeframe.report.drawing import INK, NOISE_AXIS, QUIET, Hints, Record, colour_of, draw, legend
from moeframe.report.numbers import format_figure, format_interval
from moeframe.stats.intervals import mean, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"


class Mark(Record):
    """A mean over seeds with its t-interval; without one where there are too few seeds."""

    mean: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mark":
        """From one value per seed."""
        return cls(mean=mean(values), interval=t_interval(values))

    @property
    def shown(self) -> str:
        """As a reader wants it."""
        interval = f" ({format_interval(self.interval)})" if self.interval else ""
        return f"{format_figure(self.mean, self.interval)}{interval}"


class Point(Record):
    """A variant in the plane of two figures."""

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


@dataclass(frozen=True)
class Cast:
    """All variants of the study in order, so that each looks the same in every plot, and which is the baseline."""

    names: Sequence[str]
    baseline: str

    def style(self, name: str) -> Mapping[str, Any]:
        """Colour and marker of a variant."""
        k, n = list(self.names).index(name), len(self.names)
        return {
            "color": INK if name == self.baseline else colour_of(k % 8, 8) if n <= 24 else colour_of(k, n),
            "marker": MARKERS[k // 8 % len(MARKERS)],
        }


NOISE = Axis(label=NOISE_AXIS)


def scatter(name: str, title: str, points: Sequence[Point], x: Axis, y: Axis, cast: Cast) -> str:
    """Every variant as a mark with its intervals; the baseline is black."""

    def paint(axes: "Axes") -> Hints:
        hints = {}
        for k, point in enumerate(points):
            style = cast.style(point.name)
            mark = axes.errorbar(
                point.x.mean,
                point.y.mean,
                xerr=_reach(point.x),
                yerr=_reach(point.y),
                marker=style["marker"],
                color=style["color"],
                markersize=5,
                linestyle="none",
                elinewidth=0.9,
                label=point.name,
            )
            gid = f"mark-{k}"
            mark.lines[0].set_gid(gid)
            hints[gid] = f"{point.title}\n{x.label}: {point.x.shown}\n{y.label}: {point.y.shown}"
        _label(axes, x, y)
        legend(axes)
        return hints

    return draw(name, title, paint, 3.2)


def lines(
    name: str, title: str, curves: Sequence[Line], x: Axis, y: Axis, cast: Cast, level: float | None = None
) -> str:
    """Every variant as a line in the band of its intervals; the baseline is black, a level of meaning dashed."""

    def paint(axes: "Axes") -> Hints:
        hints = {}
        for k, curve in enumerate(curves):
            style = cast.style(curve.name)
            across, marks = zip(*curve.points, strict=True)
            if ends := [(a, *mark.interval) for a, mark in curve.points if mark.interval is not None]:
                at, low, high = zip(*ends, strict=True)
                axes.fill_between(at, low, high, color=style["color"], alpha=0.1, linewidth=0, zorder=1)
            [line] = axes.plot(
                across,
                [mark.mean for mark in marks],
                color=style["color"],
                marker=style["marker"],
                markersize=3,
                linewidth=2.0 if curve.name == cast.baseline else 1.1,
                label=curve.name,
                zorder=4 if curve.name == cast.baseline else 2,
            )
            line.set_gid(f"line-{k}")
            said = [f"{x.label}: {format_figure(a)}\n{y.label}: {mark.shown}" for a, mark in curve.points]
            hints[f"line-{k}"] = [curve.title, *(f"{curve.title}\n{each}" for each in said)]
        if level is not None:
            axes.axhline(level, color=QUIET, linestyle="--", linewidth=1.0)
        _label(axes, x, y)
        legend(axes)
        return hints

    return draw(name, title, paint, 3.4)


def _reach(mark: Mark) -> Any:
    # Any: numpy's array type says no more to a reader
    return None if mark.interval is None else np.array([[mark.mean - mark.interval[0]], [mark.interval[1] - mark.mean]])


def _label(axes: "Axes", x: Axis, y: Axis) -> None:
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    if x.log:
        _spread(axes)


def _spread(axes: "Axes") -> None:
    """A logarithmic axis across, with plain numbers at ones, twos and fives."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
