"""How every plot of a report is drawn: one style and palette, and an SVG string whose bytes follow from its data.

Plots are SVG that matplotlib draws, not a JavaScript library: a page with twenty plots stays small, prints, works
without a script, and is the same bytes each time. Colours become CSS variables, so that they follow the theme.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.2
"""Inches: narrow enough that 9 pt text stays readable when the page shrinks it to a phone."""
WIDE = 9.6
"""Inches of a plot across a desktop page."""
NOISE_AXIS = "log-SNR (noisy → clean)"
INK, QUIET, GRID, PAPER, REST = "#1b1f24", "#57606b", "#e0e4e9", "#fefefe", "#8a929c"
# Told apart with every common colour blindness, at least 3:1 against the page; no yellow. Ink is the merged model.
COLOURS = ("#0072b2", "#c65300", "#007f5f", "#a0498a", "#2f8fc8", "#7a5c00", "#5b4db1", "#6f7782")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.8, 1.2)), (0, (7, 1.6, 1.4, 1.6)))
HEAT = "#2a78b8"
"""The colour of a matrix, whose opacity shows the value."""
GROUP_COLOURS = {"baseline": "#1b1f25", "control": "#0063a6", "mixture": "#b84a00", "ablation": "#00735a"}
GROUP_MARKERS = {"baseline": "D", "control": "s", "mixture": "o", "ablation": "^"}
VARIABLES = {
    INK: "ink",
    QUIET: "quiet",
    GRID: "grid",
    PAPER: "paper",
    REST: "rest",
    HEAT: "heat",
    **{colour: f"group-{group}" for group, colour in GROUP_COLOURS.items()},
    **{colour: f"series-{k}" for k, colour in enumerate(COLOURS)},
}
"""The CSS variable that takes the place of each colour on a page; style.css sets them for light and dark."""
STYLE: dict[Any, object] = {
    "svg.hashsalt": "moeframe",
    "svg.fonttype": "none",
    "path.simplify": False,  # a test reads every vertex
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
    "grid.color": GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


class Record(BaseModel):
    """Part of diagnostics.json or events.jsonl; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Hints = Mapping[str, str | Sequence[str]]
"""Hover texts by gid: one text for the part, then optionally one per mark."""


def draw(
    name: str, title: str, paint: Callable[["Axes"], Hints | None], height: float = 2.8, width: float = WIDTH
) -> str:
    """Draw one plot as an SVG element; its ids start with `name`, so that several plots can share a page.

    `paint` gives each data series a gid, and may return hover texts for them.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change the report
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        hints = paint(figure.add_subplot()) or {}
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for gid, texts in hints.items():
        svg = _hinted(svg, gid, [texts] if isinstance(texts, str) else texts)
    for k, hashed in enumerate(dict.fromkeys(re.findall(r'\bid="([mp][0-9a-f]{10})"', svg))):
        svg = svg.replace(hashed, f"{hashed[0]}{k}")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return _compact(svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip())


UNUSED_ID = re.compile(r' id="[\w-]*(?:axes|legend|line2d|matplotlib\.axis|patch|text)_\d+"')
"""Ids that matplotlib gives to parts and nothing refers to."""


def _compact(svg: str) -> str:
    """The same picture in three quarters of the bytes: coordinates to 0.01 pt, no line breaks, no unused ids."""
    svg = re.sub(r'(?<= )(?:d|x|y|transform)="[^"]*"', lambda match: _rounded(match[0]), svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    return re.sub(r"\s*\n\s*(?=<)", "", UNUSED_ID.sub("", svg))


SHARED_FROM = 4
"""Number of uses from which a class in the plot's own style sheet is shorter than repeating the style."""


def share_styles(svg: str) -> str:
    """Move repeated styles into classes, named after the plot's ids."""
    found = re.search(r'<g id="([\w.-]*?)figure_1"', svg)
    counts = Counter(re.findall(r' style="([^"]*)"', svg))
    shared = [style for style, count in counts.items() if count >= SHARED_FROM]
    if found is None or not shared:
        return svg
    rules = []
    for k, style in enumerate(shared):
        name = f"{found[1]}s{k}"
        rules.append(f".{name}{{{style}}}")
        svg = svg.replace(f' style="{style}"', f' class="{name}"')
    svg = re.sub(r'<use class="hint" ([^>]*) class="([^"]*)"', r'<use class="hint \2" \1', svg)
    return svg.replace("</style></defs>", "".join(rules) + "</style></defs>", 1)


def _rounded(attribute: str) -> str:
    text = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), attribute)
    return re.sub(r"\s*\n\s*(?=[\w\"])", " ", text).replace(' "', '"')


def themed(svg: str) -> str:
    """Replace the colours of a plot by CSS variables, each with the colour as its fallback; fonts are the page's."""
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    coloured = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda colour: f"var(--{VARIABLES[colour[0]]}, {colour[0]})" if colour[0] in VARIABLES else colour[0],
        svg,
    )
    return share_styles(coloured)


def _hinted(svg: str, gid: str, texts: Sequence[str]) -> str:
    """Return the plot with titles for a part and for each of its marks, which must match the texts in number."""
    whole_part, *marks = (f"<title>{escape(text)}</title>" for text in texts)
    before, part = svg.split(f'<g id="{gid}">', 1)
    end = part.find('<g id="')
    part, after = part[:end], part[end:]
    if marks:
        assert part.count("<use ") == len(marks), f"{gid} has {part.count('<use ')} marks for {len(marks)} texts"
        titles = iter(marks)
        part = re.sub(r"<use ([^>]*)/>", lambda use: f'<use class="hint" {use[1]}>{next(titles)}</use>', part)
    return f'{before}<g id="{gid}" class="hint">{whole_part}{part}{after}'


def colour_of(k: int, n: int) -> str:
    """Return the colour of expert k of n."""
    if n <= len(COLOURS):
        return COLOURS[k]
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps["viridis"](k / (n - 1) * 0.85))  # without its yellow end


def legend(axes: "Axes") -> None:
    """Put the legend above the plot, where it hides nothing; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    columns = min(len(labels), max(1, int(WIDTH / (0.44 + 0.068 * max(map(len, labels))))))  # inches of 8 pt text
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, fontsize=8, handlelength=2.2, columnspacing=1.2
    )
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(labels) // columns))
