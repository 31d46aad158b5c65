"""The sweep of the switch point: its record sweep.json, its plot and its sentences."""

from typing import TYPE_CHECKING, Literal

from moeframe.report.drawing import INK, PAPER, QUIET, Record, colour_of, draw, legend
from moeframe.report.numbers import format_interval
from moeframe.report.titles import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SweptSeed(Record):
    """The values of one seed for one model of a sweep."""

    seed: int
    eta: float | None
    bits_per_dim: float
    quality: float | None


class SweepPoint(Record):
    """One model of a sweep (two experts and a switch, or one expert alone): means over seeds with t-intervals."""

    name: str
    eta: float | None
    """Switch point η in log-SNR, the mean over the seeds that switch; None for one expert alone."""
    bits_per_dim: float
    standard_error: float
    """Of the bound, over images and draws; the intervals show the variation over seeds."""
    bits_interval: tuple[float, float] | None = None
    quality: float | None
    """None if it could not be measured."""
    quality_interval: tuple[float, float] | None = None
    pareto: bool
    """Whether no other point is at least as good in both metrics and better in one."""
    seeds: tuple[SweptSeed, ...] = ()


class SweepComparison(Record):
    """The merge minus one of its experts in one metric, paired by seed."""

    against: str
    figure: Literal["bits_per_dim", "quality"]
    difference: float
    interval: tuple[float, float] | None
    p_adjusted: float | None = None
    """After Holm's correction over all comparisons of the sweep; None if underpowered."""
    verdict: str
    n: int


class TradeOff(Record):
    """sweep.json: likelihood against quality by switch point."""

    quality_name: str
    quality_unit: str
    quality_better: str
    how: str
    points: list[SweepPoint]
    comparisons: tuple[SweepComparison, ...] = ()


def trade_off(name: str, sweep: TradeOff) -> str:
    """Draw every model of a sweep in the plane of bits/dim and quality; the Pareto front is filled.

    Bars through an expert are the 95 % interval of its difference from the merge, paired by seed: the two differ where
    the bar excludes the merge. Intervals of the means would show the variation over seeds, which both share.
    """

    def paint(axes: "Axes") -> None:
        measured = [(p, p.quality) for p in sweep.points if p.quality is not None]
        kinds = list(dict.fromkeys(point.name for point, _ in measured))
        path = sorted((p.eta, p.bits_per_dim, q) for p, q in measured if p.eta is not None)
        [line] = axes.plot([bits for _, bits, _ in path], [q for _, _, q in path], color=QUIET, linewidth=0.8)
        line.set_gid("sweep")
        for k, kind in enumerate(kinds):
            own = [(point, quality) for point, quality in measured if point.name == kind]
            merge, colour = kind == "merge", INK if kind == "merge" else colour_of(k, len(kinds))
            marks = axes.scatter(
                [point.bits_per_dim for point, _ in own],
                [quality for _, quality in own],
                facecolors=[colour if point.pareto else PAPER for point, _ in own],
                edgecolors=colour,
                marker="s" if merge else "o",
                s=50 if merge else 30,
                zorder=4 if merge else 3,
                label=kind,
            )
            marks.set_gid(f"model-{k}")
            for point, quality in own:
                _bars(axes, sweep, point, quality, colour)
        better = "lower" if sweep.quality_better == "lower" else "higher"
        axes.set_xlabel("bits/dim (lower is better)")
        axes.set_ylabel(f"{in_words(sweep.quality_name)} ({better} is better)")
        legend(axes)

    return draw(name, "Likelihood against quality by switch point", paint, 3.2)


def _bars(axes: "Axes", sweep: TradeOff, point: SweepPoint, quality: float, colour: str) -> None:
    """Draw the intervals of an expert's paired differences from the merge, with several seeds."""
    merge = next((each for each in sweep.points if each.name == "merge"), None)
    for one in sweep.comparisons:
        if merge is None or merge.quality is None or one.against != point.name or one.interval is None:
            continue
        low, high = one.interval
        if one.figure == "bits_per_dim":
            ends = (merge.bits_per_dim - high, merge.bits_per_dim - low)
            axes.plot(ends, (quality, quality), color=colour, linewidth=1.4, alpha=0.7)
        else:
            ends = (merge.quality - high, merge.quality - low)
            axes.plot((point.bits_per_dim, point.bits_per_dim), ends, color=colour, linewidth=1.4, alpha=0.7)


def sweep_sentences(sweep: TradeOff) -> list[str]:
    """Return one sentence per metric on the merge against each of its experts."""
    return [_sentence(one, sweep) for one in sweep.comparisons]


def _sentence(one: SweepComparison, sweep: TradeOff) -> str:
    figure = "bits/dim" if one.figure == "bits_per_dim" else in_words(sweep.quality_name)
    interval = "" if one.interval is None else f" (95 % interval {format_interval(one.interval)})"
    p = "" if one.p_adjusted is None else f", Holm-adjusted p = {one.p_adjusted:.2g}"
    verdict = "" if one.verdict == "underpowered" else f"; {one.verdict}"
    return f"merge minus {one.against}, {figure}: {one.difference:+.4g}{interval} over {one.n} seeds{p}{verdict}"
