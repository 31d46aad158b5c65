"""Confidence intervals over seeds and within a run."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moeframe.errors import NonFiniteError
from moeframe.stats.intervals import (
    ONE_SEED,
    bootstrap_interval,
    mean,
    median_interval,
    normal_interval,
    proportion_interval,
    sd,
    summarise,
    t_interval,
)

finite = st.floats(-1e3, 1e3)


# --- over seeds -------------------------------------------------------------------------------------------------------


@given(st.lists(finite, min_size=2, max_size=12))
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


# --- within a run -----------------------------------------------------------------------------------------------------


def test_image_means_have_a_normal_interval_from_100_students_from_30_and_none_below():
    assert normal_interval(2.0, 0.5, 100).ends == pytest.approx((2 - 0.979982, 2 + 0.979982), abs=1e-6)
    assert normal_interval(2.0, 0.5, 100).method == "95 %, normal, standard error over 100 images"
    assert normal_interval(2.0, 0.5, 30).ends == pytest.approx((2 - 0.5 * 2.045230, 2 + 0.5 * 2.045230), abs=1e-6)
    assert normal_interval(2.0, 0.5, 30).method == "95 %, Student's t(29), standard error over 30 images"
    refused = normal_interval(2.0, 0.5, 29)
    assert (refused.ends, refused.method) == (None, "none: 29 images; an interval of their mean needs 30")


@given(st.integers(0, 200))
def test_wilsons_interval_stays_within_0_and_1_and_holds_the_rate(successes):
    low, high = proportion_interval(successes, 200).ends
    assert 0 <= low <= successes / 200 <= high <= 1


def test_wilsons_interval_meets_a_worked_example_and_is_refused_below_200():
    z, p, n = 1.959964, 0.9, 200
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert proportion_interval(180, 200).ends == pytest.approx(
        ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-6
    )
    assert proportion_interval(9, 10).method == "none: 10 images; an interval of a rate needs 200"


@given(st.lists(finite, min_size=6, max_size=40))
def test_the_median_interval_holds_the_median_and_lies_within_scipys_conservative_one(values):
    low, high = median_interval(values).ends
    assert low <= np.median(values) + 1e-9
    assert high >= np.median(values) - 1e-9
    conservative = stats.quantile_test(values, p=0.5).confidence_interval()
    assert conservative.low - 1e-9 <= low
    assert high <= conservative.high + 1e-9


@given(st.permutations([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0]))
def test_the_median_interval_ignores_the_order_of_the_values(values):
    assert median_interval(values) == median_interval(sorted(values))


def test_the_median_interval_reaches_between_the_outer_values_at_six_and_is_refused_at_five():
    low, high = median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).ends
    # P(no value beyond the median) leaves 0.96875 and 0.78125; Hettmansperger and Sheather's weight of the inner values
    excess = (0.96875 - 0.95) / (0.96875 - 0.78125)
    inward = 5 * excess / (1 + 4 * excess)
    assert (low, high) == pytest.approx((1 + inward, 6 - inward))
    assert median_interval([1.0] * 5).method == "none: 5 values; an interval of their median needs 6"


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_bootstrap_over_indices_equals_scipys_over_values(method):
    x = np.random.default_rng(5).gamma(4.0, size=100)
    ends = bootstrap_interval(100, lambda index: float(x[index].mean()), seed=3, method=method).ends
    rng = np.random.default_rng(3)
    scipys = stats.bootstrap((x,), np.mean, n_resamples=999, method=method, random_state=rng).confidence_interval
    assert ends == pytest.approx((scipys.low, scipys.high), rel=1e-12)


def test_the_bootstrap_is_a_function_of_its_seed():
    x = np.random.default_rng(5).normal(size=100)

    def at(seed):
        return bootstrap_interval(100, lambda index: float(x[index].mean()), seed)

    assert at(1) == at(1)
    assert at(1).ends != at(2).ends
    assert at(1).method == "95 %, percentile bootstrap, 999 resamples, 100 images"


def test_the_basic_interval_mirrors_the_percentile_interval_at_the_estimate():
    x = np.random.default_rng(5).gamma(2.0, size=1000)

    def ends(method):
        return bootstrap_interval(1000, lambda index: float(x[index].var()), seed=0, method=method).ends

    (low, high), estimate = ends("percentile"), float(x.var())
    assert ends("basic") == pytest.approx((2 * estimate - high, 2 * estimate - low))


@pytest.mark.parametrize(("method", "n", "needs"), [("percentile", 99, 100), ("BCa", 99, 100), ("basic", 999, 1000)])
def test_the_bootstrap_is_refused_where_it_would_be_too_short(method, n, needs):
    interval = bootstrap_interval(n, lambda index: float(index.mean()), seed=0, method=method)
    assert (interval.ends, interval.method) == (
        None,
        f"none: {n} images; a {method} bootstrap interval needs {needs}",
    )


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_bootstrap_of_a_constant_has_no_interval(method):
    interval = bootstrap_interval(100, lambda index: 7.0, seed=0, method=method)
    assert interval.method == "none: the statistic is the same in every resample"


def test_the_bootstrap_of_a_nan_is_refused():
    with pytest.raises(NonFiniteError, match="the statistic of a resample is nan"):
        bootstrap_interval(100, lambda index: math.nan, seed=0)
