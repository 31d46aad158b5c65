"""The plots of a run: each turns a record into an SVG string, and the same record gives the same bytes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from moeframe.report.drawing import DASHES, HEAT, INK, NOISE_AXIS, PAPER, QUIET, Record, colour_of, draw, legend
from moeframe.report.titles import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAX_POINTS = 200
"""A longer training curve is averaged down to this many points, which also smooths it."""


class LearningCurve(Record):
    """One phase of training: (step, value) pairs in one unit. Missing curves are empty."""

    unit: str
    train: list[tuple[int, float]]
    experts: list[list[tuple[int, float]]]
    validation: list[tuple[int, float]]


class LossTerm(Record):
    """One term of the objective before its weight, as (step, value) pairs."""

    name: str
    unit: str
    weight: float
    values: list[tuple[int, float]]


class GateWeightsByNoise(Record):
    """Mean gate weights of K experts per log-SNR."""

    log_snr: list[float]
    mean: list[list[float]]


class SliceBits(Record):
    """Test bits/dim per expert and slice, of the merged model per slice, and the number of images per slice."""

    matrix: list[list[float | None]]
    merged: list[float | None]
    n: list[int]


class RouterAccuracy(Record):
    """How often the largest gate weight is on the expert of the image's own slice, per log-SNR."""

    log_snr: list[float]
    accuracy: list[float | None]
    per_slice: tuple[list[float | None], ...] = ()
    chance: float


class BoundByNoise(Record):
    """The density of the bound over log-SNR; its integral is the diffusion part of the bound."""

    log_snr: list[float]
    merged: list[float]
    experts: list[list[float | None]]
    """None outside the log-SNR range of an expert."""
    unit: str
    images: int | None = None
    """Number of test images that the mean is over, one draw each, the same noise for all models."""


def learning_curve(name: str, curve: LearningCurve) -> str:
    """Draw training loss of the model and of each expert, and the validation bound, over steps."""

    def paint(axes: "Axes") -> None:
        for k, points in enumerate(curve.experts):
            if points:
                [line] = axes.plot(*_binned(points), **_look(k, len(curve.experts)), label=f"expert {k}")
                line.set_gid(f"expert-{k}")
        if curve.train:
            [line] = axes.plot(*_binned(curve.train), color=QUIET, label="training batch")
            line.set_gid("train")
        if curve.validation:
            [line] = axes.plot(*_columns(curve.validation), color=INK, marker="o", markersize=3.5, label="validation")
            line.set_gid("validation")
        every = [value for points in (*curve.experts, curve.train, curve.validation) for _, value in points]
        if every and min(every) > 0 and max(every) > 4 * min(every):
            _log_axis(axes)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(curve.unit)
        legend(axes)

    return draw(name, "Learning curve", paint)


def loss_terms(name: str, terms: Sequence[LossTerm]) -> str:
    """Draw the other terms of the objective over steps, before their weights."""

    def paint(axes: "Axes") -> None:
        for k, term in enumerate(terms):
            label = f"{in_words(term.name)}, weight {term.weight:g}"
            [line] = axes.plot(*_binned(term.values), **_look(k, len(terms)), label=label)
            line.set_gid(f"term-{k}")
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(", ".join(dict.fromkeys(term.unit for term in terms)))
        legend(axes)

    return draw(name, "Terms of the objective besides the likelihood", paint)


def gate_weights(name: str, weights: GateWeightsByNoise) -> str:
    """Draw mean gate weights as a stacked area over the noise level."""

    def paint(axes: "Axes") -> None:
        order = np.argsort(weights.log_snr)
        x, y = np.array(weights.log_snr)[order], np.array(weights.mean)[order].T
        colours = [colour_of(k, len(y)) for k in range(len(y))]
        areas = axes.stackplot(
            x, y, colors=colours, labels=[f"expert {k}" for k in range(len(y))], edgecolor=PAPER, linewidth=0.8
        )
        for k, area in enumerate(areas):
            area.set_gid(f"expert-{k}")
        axes.set(xlabel=NOISE_AXIS, ylabel="mean gate weight", ylim=(0, 1), xlim=(x[0], x[-1]))
        legend(axes)

    return draw(name, "Mean gate weight of each expert by noise level", paint)


def slice_matrix(name: str, bits: SliceBits, slices: Sequence[str]) -> str:
    """Draw test bits/dim per expert and slice as numbers; colour is the excess over the best expert of a slice."""
    values = np.array(bits.matrix, dtype=float)
    rows = np.vstack([values, np.array(bits.merged, dtype=float)[None]])
    excess = rows - np.fmin.reduce(values)  # NaN where a slice has no test image, or no expert a bound
    n_experts, n_slices = values.shape

    def paint(axes: "Axes") -> None:
        from matplotlib.patches import Rectangle

        top = max([1e-9, *excess[np.isfinite(excess)].tolist()])
        axes.set(xlim=(-0.5, n_slices - 0.5), ylim=(n_experts + 0.5, -0.5))
        for row, column in np.ndindex(rows.shape):
            value, best = rows[row, column], row < n_experts and excess[row, column] == 0
            share = 0.0 if np.isnan(value) else max(0.0, excess[row, column]) / top
            heat = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=HEAT, alpha=0.55 * share, linewidth=0)
            axes.add_patch(heat)
            text = axes.text(
                column,
                row,
                "–" if np.isnan(value) else f"{value:.3f}",
                ha="center",
                va="center",
                fontsize=9 if n_slices <= 6 else 7,
                fontweight="bold" if best else "normal",
                color=INK,
            )
            text.set_gid(f"cell-{row}-{column}")
        if n_experts == n_slices:
            for k in range(n_experts):
                corner = (k - 0.46, k - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.4))
        axes.axhline(n_experts - 0.5, color=PAPER, linewidth=4)
        axes.set_xticks(range(n_slices), slices)
        if sum(map(len, slices)) > 30:
            axes.tick_params(axis="x", labelrotation=30)
            for label in axes.get_xticklabels():
                label.set(horizontalalignment="right", rotation_mode="anchor")
        axes.set_yticks(range(n_experts + 1), [*(f"expert {k}" for k in range(n_experts)), "merged"])
        axes.set_xlabel("slice of the test images")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return draw(name, "Test bits per dimension of each expert on each slice", paint, 1.2 + 0.42 * (n_experts + 1))


def expert_usage(name: str, usage: Sequence[float]) -> str:
    """Draw the mean gate weight of each expert as bars, with a line for balanced use."""
    n = len(usage)

    def paint(axes: "Axes") -> None:
        bars = axes.bar(range(n), usage, color=[colour_of(k, n) for k in range(n)], width=0.65)
        for k, bar in enumerate(bars):
            bar.set_gid(f"expert-{k}")
        if n <= 10:
            axes.bar_label(bars, fmt="%.3f", padding=2, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1})
        axes.axhline(1 / n, color=INK, linestyle="--", linewidth=1.2, label=f"balanced: 1/{n}")
        axes.set_xticks(range(n))
        axes.set(xlabel="expert", ylabel="mean gate weight", ylim=(0, max(*usage, 1 / n) * 1.18))
        axes.grid(visible=False, axis="x")
        legend(axes)

    return draw(name, "Use of each expert", paint)


def router_accuracy(name: str, router: RouterAccuracy, slices: Sequence[str]) -> str:
    """Draw how often the gate picks the expert of the image's slice, over log-SNR, with a line for chance."""

    def paint(axes: "Axes") -> None:
        per_slice = np.array(router.per_slice, dtype=float)
        for k in range(per_slice.shape[1] if per_slice.ndim == 2 else 0):
            label = slices[k] if k < len(slices) else f"slice {k}"
            look = _look(k, per_slice.shape[1])
            [line] = axes.plot(router.log_snr, per_slice[:, k], **look, linewidth=1, label=label)
            line.set_gid(f"slice-{k}")
        accuracy = np.array(router.accuracy, dtype=float)
        [line] = axes.plot(router.log_snr, accuracy, color=INK, linewidth=2.2, label="all images")
        line.set_gid("all")
        axes.axhline(router.chance, color=QUIET, linestyle="--", linewidth=1.2, label=f"chance: {router.chance:.3g}")
        axes.set(xlabel=NOISE_AXIS, ylabel="router accuracy", ylim=(0, 1.02))
        legend(axes)

    return draw(name, "Router accuracy by noise level", paint)


def bound_by_noise(name: str, bound: BoundByNoise, switches: Sequence[float] = ()) -> str:
    """Draw the density of the bound over log-SNR, of the merged model and of each expert alone."""

    def paint(axes: "Axes") -> None:
        for k, values in enumerate(bound.experts if len(bound.experts) > 1 else []):
            look = _look(k, len(bound.experts))
            density = np.array(values, dtype=float)
            [line] = axes.plot(bound.log_snr, density, **look, linewidth=1.2, label=f"expert {k} alone")
            line.set_gid(f"expert-{k}")
        label = "merged" if len(bound.experts) > 1 else "model"
        [line] = axes.plot(bound.log_snr, bound.merged, color=INK, linewidth=2.2, label=label)
        line.set_gid("merged")
        for i, switch in enumerate(switches):
            axes.axvline(switch, color=QUIET, linestyle="--", linewidth=1.2, label="" if i else "switch")
        axes.set(xlabel=NOISE_AXIS, ylabel=bound.unit)
        axes.set_ylim(bottom=0)
        legend(axes)

    return draw(name, "The bound by noise level", paint)


def figure_over_noise(name: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw one metric at several noise levels, from (log-SNR, value) pairs."""

    def paint(axes: "Axes") -> None:
        log_snr, values = zip(*sorted(points), strict=True)
        [line] = axes.plot(log_snr, values, color=INK, marker="o", markersize=3.5)
        line.set_gid("metric")
        axes.set_xlabel(NOISE_AXIS)
        axes.set_ylabel(unit)

    return draw(name, "Reconstructions over noise level", paint)


def _look(k: int, n: int) -> dict[str, Any]:
    """Return colour and dashes of expert k of n: colour alone does not reach every reader."""
    return {"color": colour_of(k, n), "linestyle": DASHES[k % len(DASHES)]}


def _log_axis(axes: "Axes") -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _binned(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """Return steps and values; more than MAX_POINTS are averaged in neighbouring groups."""
    edges = np.linspace(0, len(points), min(len(points), MAX_POINTS) + 1).astype(int)
    means = [np.mean(points[start:stop], axis=0) for start, stop in pairwise(edges)]
    return [float(step) for step, _ in means], [float(value) for _, value in means]
