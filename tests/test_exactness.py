"""The figures of benchmarks/exactness.py lie in their required ranges."""

import math
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from exactness import FIGURES  # noqa: E402

sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
@pytest.mark.parametrize("figure", [pytest.param(figure, id=figure.name) for figure in FIGURES])
def test_figure_lies_in_its_required_range(figure):
    values = figure.measure()
    assert values
    for name, value in values.items():
        assert math.isfinite(value)
        assert figure.low <= value <= figure.high, name
