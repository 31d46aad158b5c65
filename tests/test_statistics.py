import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moeframe.statistics import ONE_SEED, mean, sd, summarise, t_interval


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_t_interval_equals_scipys(values):
    scale = np.std(values, ddof=1) / math.sqrt(len(values))
    unit = stats.t.interval(0.95, len(values) - 1)
    expected = [np.mean(values) + end * scale for end in unit]
    assert t_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_t_interval_of_three_seeds_uses_two_degrees_of_freedom():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)


def test_one_seed_has_no_interval_and_says_so():
    summary = summarise([2.5])
    assert (summary.mean, summary.sd, summary.interval, summary.method, summary.n) == (2.5, None, None, ONE_SEED, 1)
    assert ONE_SEED == "none: one seed"


def test_several_seeds_name_method_and_count():
    summary = summarise([1.0, 2.0, 3.0])
    assert summary.method == "95 % t-interval over 3 seeds"
    assert (summary.sd, summary.n) == (1.0, 3)


def test_sd_divides_by_n_minus_one():
    assert sd([0.0, 2.0]) == pytest.approx(math.sqrt(2))


def test_mean_loses_no_small_terms():
    assert mean([1e16, 1.0, -1e16, 1.0]) == 0.5


def test_the_interval_covers_at_its_stated_rate():
    draws = np.random.default_rng(0).normal(size=(2000, 4))
    covered = [low <= 0 <= high for low, high in (t_interval(list(row)) for row in draws)]
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.015)
