"""Read numbers off a plot: the ticks of its axes turn the places of its marks back into values."""

import math
import re
from xml.etree import ElementTree

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3, "µ": 1e-6, "n": 1e-9}


def plots_of(html):
    """Every SVG plot of a page by its title, the desktop version first."""
    found = {}
    for svg in re.findall(r'<svg role="img".*?</svg>', html, re.S):
        plot = Plot(svg)
        found.setdefault(plot.title, plot)
    return found


class Plot:
    """One plot that matplotlib drew."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.title = self.root.get("aria-label")
        ids = [element.get("id", "") for element in self.root.iter()]
        self.prefix = next(each for each in ids if each.endswith("figure_1")).removesuffix("figure_1")
        self.groups = {each.get("id").removeprefix(self.prefix): each for each in self.root.iter() if each.get("id")}
        self.x, self.y = (_scale(self._ticks(axis)) for axis in "xy")

    def texts(self):
        return [text for element in self.root.iter() if _tag(element) == "text" and (text := _words(element))]

    def marks(self, gid):
        """(x, y) of each mark of a series."""
        uses = [element for element in self.groups[gid].iter() if _tag(element) == "use"]
        return [(self.x(float(use.get("x"))), self.y(float(use.get("y")))) for use in uses]

    def line(self, gid):
        """(x, y) of each vertex of a line, which has no gaps."""
        path = next(element for element in self.groups[gid] if _tag(element) == "path")
        return [(self.x(x), self.y(y)) for x, y in _vertices(path)]

    def area(self, gid):
        """{x: height} of a stacked area."""
        group = self.groups[gid]
        path = next(element for element in group.iter() if _tag(element) == "path")
        use = next(element for element in group.iter() if _tag(element) == "use")
        ends = {}
        for x, y in _vertices(path):
            value = self.y(y + float(use.get("y")))
            ends.setdefault(round(self.x(x + float(use.get("x"))), 2), []).append(value)
        return {x: max(values) - min(values) for x, values in ends.items()}

    def bar(self, gid):
        """(left, right, bottom, top) of a bar."""
        vertices = _vertices(next(element for element in self.groups[gid].iter() if _tag(element) == "path"))
        across, up = [self.x(x) for x, _ in vertices], [self.y(y) for _, y in vertices]
        return min(across), max(across), min(up), max(up)

    def text_at(self, gid):
        """Text and place of a label, in pixels of the picture."""
        element = next(element for element in self.groups[gid].iter() if _tag(element) == "text")
        return _words(element), float(element.get("x")), float(element.get("y"))

    def _ticks(self, axis):
        found = []
        for name, group in self.groups.items():
            if re.fullmatch(rf"{axis}tick_\d+", name):
                use = next((element for element in group.iter() if _tag(element) == "use"), None)
                text = next((_words(element) for element in group.iter() if _tag(element) == "text"), "")
                value = _number(text)
                if use is not None and value is not None:
                    found.append((float(use.get(axis)), value))
        return sorted(found)


def _scale(ticks):
    """A function from a place to a value: linear, or logarithmic where the ticks are."""
    if len(ticks) < 2:
        return lambda place: place
    (first, low), (last, high) = ticks[0], ticks[-1]
    share = lambda place: (place - first) / (last - first)  # noqa: E731
    linear = lambda place: low + share(place) * (high - low)  # noqa: E731
    if min(low, high) <= 0:
        return linear
    logarithmic = lambda place: low * (high / low) ** share(place)  # noqa: E731
    misses = [sum(abs(scale(p) / v - 1) for p, v in ticks) for scale in (linear, logarithmic)]
    if len(ticks) == 2 and math.isclose(high, 2 * low):
        return logarithmic
    return linear if misses[0] <= misses[1] else logarithmic


def _vertices(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d"))]


def _number(text):
    match = re.fullmatch(r"([+-]?[\d.]+)([kMGTmµn]?)", text.replace("−", "-").replace(" ", ""))
    return float(match[1]) * UNITS.get(match[2], 1.0) if match else None


def _words(element):
    return "".join(element.itertext()).strip()


def _tag(element):
    return element.tag.rsplit("}", 1)[-1]
