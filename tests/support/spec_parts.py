"""Sections of a spec whose slicer is made of two others."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


LIGHT_AND_COLOUR = {
    "type": "product",
    "slicers": [{"type": "lighting", "balance": "natural"}, {"type": "color_variance"}],
    "counts": [2, 1],
}


def with_part(part):
    return {**LIGHT_AND_COLOUR, "slicers": [{"type": "lighting"}, part]}


def nested(depth):
    """A product in a product, the innermost of two parts."""
    inner = LIGHT_AND_COLOUR
    for _ in range(depth):
        inner = {"type": "product", "slicers": [inner, {"type": "texture"}], "counts": [2, 1]}
    return inner
