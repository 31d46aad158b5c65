"""How every plot of a report is drawn: one style, one palette, an SVG string whose bytes follow from its record."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.2
"""Inches: narrow enough that 9 pt text stays readable when the page shrinks it to a phone."""
NOISE_AXIS = "log-SNR (noisy → clean)"
INK, QUIET = "#1f2328", "#6b7280"
# Okabe and Ito: told apart with every common colour blindness. Black is kept for the merged model.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#9CA3AF")
STYLE: dict[Any, object] = {
    "svg.hashsalt": "moeframe",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a slice's name is a dollar
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; browsers that lack it take their own sans-serif
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


class Record(BaseModel):
    """Part of diagnostics.json or events.jsonl; keys that no plot needs are allowed."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Hints = Mapping[str, str | Sequence[str]]
"""What a reader sees when pointing at a part of a plot, by its gid: a text for all of it, then one for each mark."""


def draw(name: str, title: str, paint: Callable[["Axes"], Hints | None], height: float = 2.8) -> str:
    """One plot as an SVG element whose ids start with `name`, so that several share a page.

    What `paint` returns becomes the titles of the parts that it gave a gid.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change the report
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        hints = paint(figure.add_subplot()) or {}
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for gid, texts in hints.items():
        svg = _hinted(svg, gid, [texts] if isinstance(texts, str) else texts)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return _compact(svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip())


UNUSED_ID = re.compile(r' id="[\w-]*(?:axes|legend|line2d|matplotlib\.axis|patch|text)_\d+"')
"""Ids that matplotlib gives to parts and nothing refers to."""


def _compact(svg: str) -> str:
    """The same picture in three quarters of the bytes: coordinates to 0.01 pt, no line breaks, no unused ids."""
    svg = re.sub(r'(?<= )(?:d|x|y|transform)="[^"]*"', lambda match: _rounded(match[0]), svg)
    return re.sub(r"\s*\n\s*(?=<)", "", UNUSED_ID.sub("", svg))


def _rounded(attribute: str) -> str:
    text = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), attribute)
    return re.sub(r"\s*\n\s*(?=[\w\"])", " ", text).replace(' "', '"')


def _hinted(svg: str, gid: str, texts: Sequence[str]) -> str:
    """With titles of a part and of its marks, of which it has as many as there are texts left."""
    whole, *marks = (f"<title>{escape(text)}</title>" for text in texts)
    before, part = svg.split(f'<g id="{gid}">', 1)
    end = part.find('<g id="')
    part, after = part[:end], part[end:]
    if marks:
        assert part.count("<use ") == len(marks), f"{gid} has {part.count('<use ')} marks for {len(marks)} texts"
        titles = iter(marks)
        part = re.sub(r"<use ([^>]*)/>", lambda use: f'<use class="hint" {use[1]}>{next(titles)}</use>', part)
    return f'{before}<g id="{gid}" class="hint">{whole}{part}{after}'


def colour_of(k: int, n: int) -> str:
    """Colour of expert k of n."""
    if n <= len(COLOURS):
        return COLOURS[k]
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps["viridis"](k / (n - 1)))


def legend(axes: "Axes") -> None:
    """Above the plot, where it hides nothing; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    columns = min(len(labels), max(1, int(WIDTH / (0.38 + 0.068 * max(map(len, labels))))))  # inches of 8 pt text
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, fontsize=8, handlelength=1.4, columnspacing=1.2
    )
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(labels) // columns))
