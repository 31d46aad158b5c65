"""Labels beside the points and lines of a plot, placed where they hide least; no legend to look up."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 8.0
"""Points."""
CHARACTER = 0.6 * FONT
"""Width of a character of the widest usual font, points."""
LINE = 1.2 * FONT
FAR = 4.0
"""Hidden square points that one point of distance is worth."""
Box = tuple[float, float, float, float]
"""Left, bottom, right, top, points from the figure's lower left corner."""


def wrapped(text: str, width: int) -> str:
    """Break a title into at most two lines.

    >>> wrapped("switch merge of A and another", 15)
    'switch merge of\\nA and another'
    """
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder="…"))


def label_points(axes: "Axes", points: Sequence[tuple[float, float, str, str]], obstacles: Sequence[Box]) -> None:
    """Write the title of each (x, y, title, colour) beside its point, away from other labels and obstacles.

    The obstacles are boxes in points, as from `box_of`. The plot must have its final limits.
    """
    frame = _frame(axes)
    taken: list[Box] = list(obstacles)
    for x, y, text, colour in points:
        at = position(axes, x, y)
        best, box = min(
            ((place, _box(at, place, text)) for place in _places()),
            key=lambda found: _cost(found[1], taken, frame) + FAR * (abs(found[0][0]) + abs(found[0][1])),
        )
        taken.append(box)
        far = abs(best[0]) + abs(best[1]) > 16
        axes.annotate(
            text,
            (x, y),
            best,
            textcoords="offset points",
            ha="left" if best[0] > 0 else "right" if best[0] < 0 else "center",
            va="bottom" if best[1] > 0 else "top" if best[1] < 0 else "center",
            fontsize=FONT,
            linespacing=1.05,
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            if far
            else None,
        )


def label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the title of each curve, from the (x, y, title, colour) of its last point, right of the plot."""
    from matplotlib.transforms import offset_copy

    figure = axes.get_figure(root=True)
    ordered = sorted(ends, key=lambda end: end[1])
    wanted = [position(axes, x, y)[1] for x, y, _, _ in ordered]
    heights = [LINE * (1.25 + text.count("\n")) for _, _, text, _ in ordered]
    for (x, y, text, colour), here, up in zip(ordered, wanted, spread(wanted, heights), strict=True):
        axes.annotate(
            text,
            (x, y),
            (1.0, y),
            textcoords=offset_copy(axes.get_yaxis_transform(), figure, x=12, y=up - here, units="points"),
            va="center",
            fontsize=FONT,
            linespacing=1.0,
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 2, "shrinkB": 3},
        )


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move rising centres apart so that boxes of these heights do not overlap, by least squares.

    >>> spread([0.0, 1.0, 50.0], [10.0, 10.0, 10.0])
    [-4.5, 5.5, 50.0]
    """
    below = [0.0]
    for one, other in pairwise(heights):
        below.append(below[-1] + (one + other) / 2)
    blocks: list[tuple[float, int]] = []  # (mean, number) of centres less what must be below them: they may not fall
    for value, offset in zip(wanted, below, strict=False):
        mean, n = value - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, m = blocks.pop()
            mean, n = (mean * n + other * m) / (n + m), n + m
        blocks.append((mean, n))
    moved = [mean for mean, n in blocks for _ in range(n)]
    return [mean + offset for mean, offset in zip(moved, below, strict=False)]


def position(axes: "Axes", x: float, y: float) -> tuple[float, float]:
    """Return where a value is drawn, points from the figure's lower left corner."""
    scale = 72 / axes.figure.dpi
    across, up = axes.transData.transform((x, y))
    return float(across) * scale, float(up) * scale


def box_of(axes: "Axes", x: tuple[float, float], y: tuple[float, float], margin: float = 3.0) -> Box:
    """Return the box that a mark or an interval covers."""
    left, bottom = position(axes, x[0], y[0])
    right, top = position(axes, x[1], y[1])
    return left - margin, bottom - margin, right + margin, top + margin


def _frame(axes: "Axes") -> Box:
    scale = 72 / axes.figure.dpi
    box = axes.get_window_extent()
    return box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale


def _places() -> Iterator[tuple[float, float]]:
    """Yield offsets from a point, the nearest first."""
    for reach in (7.0, 14.0, 24.0, 38.0, 56.0, 78.0, 104.0):
        for across, up in ((1, 0.35), (-1, 0.35), (1, -0.35), (-1, -0.35), (0, 1), (0, -1), (0.7, 0.9), (-0.7, 0.9)):
            yield across * reach, up * reach
        yield from ((0.7 * reach, -0.9 * reach), (-0.7 * reach, -0.9 * reach))


def _box(at: tuple[float, float], offset: tuple[float, float], text: str) -> Box:
    width = CHARACTER * max(map(len, text.split("\n")))
    height = LINE * (1 + text.count("\n"))
    x, y = at[0] + offset[0], at[1] + offset[1]
    left = x if offset[0] > 0 else x - width if offset[0] < 0 else x - width / 2
    bottom = y if offset[1] > 0 else y - height if offset[1] < 0 else y - height / 2
    return left, bottom, left + width, bottom + height


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Return the area that a label would hide, and what of it would leave the plot, which counts ten times."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + 10 * (area - _overlap(box, frame))


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, up)
