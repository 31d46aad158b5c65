"""Comparisons paired by seed, corrected for their number, and relative gains."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from moeframe.errors import InputError, NonFiniteError
from moeframe.stats.comparison import (
    adjust,
    compare_all,
    compare_paired,
    holm,
    relative_gain,
)

finite = st.floats(-1e3, 1e3)
p_values = st.lists(st.floats(0, 1), max_size=12)


# --- paired by seed ---------------------------------------------------------------------------------------------------

seeds_of_two = st.lists(st.tuples(finite, finite), min_size=2, max_size=9).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)


@given(seeds_of_two)
def test_the_paired_test_equals_scipys(sides):
    a, b = map(list, sides)
    assume(np.std(np.subtract(a, b)) > 1e-6)
    comparison, scipys = compare_paired(a, b, "lower"), stats.ttest_rel(a, b)
    assert comparison.p_value == pytest.approx(scipys.pvalue, rel=1e-6)
    interval = scipys.confidence_interval()
    assert comparison.interval == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-6)


@settings(max_examples=25)
@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8))
def test_the_sign_flip_test_equals_counting_all_sign_patterns(differences):
    n = len(differences)
    signs = np.array([[1 if pattern >> i & 1 else -1 for i in range(n)] for pattern in range(2**n)])
    sums = signs @ np.array(differences)
    expected = min(1.0, 2 * min((sums <= sum(differences)).mean(), (sums >= sum(differences)).mean()))
    assert compare_paired(differences, [0.0] * n, "lower").p_sign_flip == pytest.approx(expected)


@settings(max_examples=50)
@given(seeds_of_two)
def test_changing_sides_changes_signs_and_verdict_only(sides):
    a, b = map(list, sides)
    forth, back = compare_paired(a, b, "lower"), compare_paired(b, a, "lower")
    swapped = {"better": "worse", "worse": "better"}
    assert back.verdict == swapped.get(forth.verdict, forth.verdict)
    assert back.mean_difference == -forth.mean_difference
    assert back.p_value == pytest.approx(forth.p_value)
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]))


LOWER = [1.0, 1.1, 0.9, 1.2, 1.0, 1.05]
HIGHER = [2.0, 2.2, 1.9, 2.1, 2.05, 2.0]


@pytest.mark.parametrize(("better", "verdict"), [("lower", "better"), ("higher", "worse")])
def test_a_clear_difference_is_called_by_the_direction_of_the_metric(better, verdict):
    assert compare_paired(LOWER, HIGHER, better).verdict == verdict


def test_a_difference_that_all_seeds_share_is_not_hidden_by_their_spread():
    seeds = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    improved = [value - shift for value, shift in zip(seeds, [0.1, 0.12, 0.09, 0.11, 0.1, 0.08], strict=True)]
    assert compare_paired(improved, seeds, "lower").verdict == "better"


def test_overlapping_seeds_show_no_difference():
    comparison = compare_paired([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0], "lower")
    assert (comparison.verdict, comparison.mean_difference) == ("no difference shown", 0.0)


@pytest.mark.parametrize("n", range(1, 6))
def test_fewer_than_six_seeds_are_underpowered_however_large_the_difference(n):
    comparison = compare_paired([value / 1000 for value in LOWER[:n]], HIGHER[:n], "lower")
    assert (comparison.verdict, comparison.p_adjusted, comparison.n) == ("underpowered", None, n)
    assert (comparison.interval is None) == (n == 1)


def test_seeds_that_one_side_lacks_are_dropped_and_counted():
    comparison = compare_paired([1.0, None, 3.0, 4.0], [0.5, 2.0, None, 3.0], "lower")
    assert (comparison.n, comparison.dropped, comparison.mean_difference) == (2, 2, 0.75)


def test_six_seeds_of_which_one_is_dropped_are_underpowered():
    assert compare_paired([*LOWER[:5], None], HIGHER, "lower").verdict == "underpowered"


def test_equal_differences_are_left_to_the_sign_flip_test():
    a = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    comparison = compare_paired([value - 0.05 for value in a], a, "lower")
    assert comparison.p_value == comparison.p_sign_flip == pytest.approx(2 / 2**6)
    assert compare_paired(a, a, "lower").p_value == 1.0


@pytest.mark.parametrize("function", [compare_paired, relative_gain])
def test_values_that_cannot_be_paired_are_refused(function):
    with pytest.raises(NonFiniteError, match="the value of a seed is nan: no interval and no comparison is made of it"):
        function([1.0, math.nan], [1.0, 2.0], "lower")
    with pytest.raises(InputError, match="2 values against 1: list the same seeds for both, None where one lacks it"):
        function([1.0, 2.0], [1.0], "lower")
    with pytest.raises(InputError, match="no seed was measured on both sides; run both with the same seeds"):
        function([1.0, None], [None, 2.0], "lower")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_holm_meets_a_worked_example():
    # sorted 0.005 0.01 0.03 0.04; times 4 3 2 1: 0.02 0.03 0.06 0.04; running maximum: 0.02 0.03 0.06 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_lies_between_the_raw_p_values_and_bonferronis(raw):
    assert all(p <= q <= min(1, len(raw) * p) for p, q in zip(raw, holm(raw), strict=True))


@given(p_values)
def test_holm_keeps_the_order_of_the_p_values(raw):
    adjusted = holm(raw)
    order = np.argsort(raw, kind="stable")
    assert all(np.diff([adjusted[i] for i in order]) >= 0)


@given(p_values.flatmap(lambda raw: st.tuples(st.just(raw), st.permutations(range(len(raw))))))
def test_holm_of_permuted_rows_is_permuted(case):
    raw, order = case
    adjusted = holm(raw)
    assert holm([raw[i] for i in order]) == [adjusted[i] for i in order]


@given(p_values, st.integers(0, 11), st.floats(0, 1))
def test_holm_rises_with_each_p_value(raw, i, factor):
    assume(i < len(raw))
    smaller = [p * factor if j == i else p for j, p in enumerate(raw)]
    assert all(q <= p + 1e-15 for q, p in zip(holm(smaller), holm(raw), strict=True))


def test_a_table_corrects_over_its_powered_rows_and_leaves_the_baseline_out():
    noisy = [2.0, 2.1, 2.3, 1.9, 1.8, 2.2]
    rows = {"one": HIGHER, "merged": LOWER, "again": noisy, "short": [*LOWER[:3], None, None, None]}
    table = compare_all(rows, "one", "lower")
    assert {name: row.verdict for name, row in table.items()} == {
        "merged": "better",
        "again": "no difference shown",
        "short": "underpowered",
    }
    assert table["merged"].p_adjusted == pytest.approx(2 * compare_paired(LOWER, HIGHER, "lower").p_value)
    assert table["short"].p_adjusted is None


def test_a_row_that_stands_alone_may_fall_to_the_correction():
    weak = [value - shift for value, shift in zip(HIGHER, [0.1, 0.2, 0.05, 0.3, 0.02, 0.25], strict=True)]
    alone = compare_paired(weak, HIGHER, "lower")
    assert alone.verdict == "better"
    tables = adjust({str(i): alone for i in range(8)})
    assert {row.verdict for row in tables.values()} == {"no difference shown"}


def test_a_table_names_the_row_that_it_cannot_compare():
    with pytest.raises(InputError, match="the baseline 'two' is not among the rows: one"):
        compare_all({"one": LOWER}, "two", "lower")
    with pytest.raises(InputError, match="merged against one: no seed was measured on both sides"):
        compare_all({"one": LOWER, "merged": [None] * 6}, "one", "lower")
    with pytest.raises(NonFiniteError, match="merged against one: the value of a seed is inf"):
        compare_all({"one": LOWER, "merged": [math.inf] * 6}, "one", "lower")


# --- relative gain ----------------------------------------------------------------------------------------------------


def test_a_gain_is_positive_where_better():
    assert relative_gain([0.8] * 3, [1.0] * 3, "lower").value == pytest.approx(0.2)
    assert relative_gain([0.8] * 3, [1.0] * 3, "higher").value == pytest.approx(-0.2)


@given(st.lists(st.tuples(st.floats(1, 2), st.floats(4, 5)), min_size=3, max_size=8))
def test_the_ends_of_fiellers_interval_are_where_the_paired_test_turns(pairs):
    ours, theirs = map(np.array, zip(*pairs, strict=True))
    assume(np.std(ours - ours.mean() / theirs.mean() * theirs) > 1e-3)
    gain = relative_gain(ours.tolist(), theirs.tolist(), "lower")
    assert gain.interval[0] <= gain.value <= gain.interval[1]
    for end in gain.interval:
        assert stats.ttest_1samp(ours - (1 - end) * theirs, 0).pvalue == pytest.approx(0.05, rel=1e-5)


@given(st.floats(0.01, 100))
def test_a_gain_does_not_depend_on_the_unit(factor):
    gain, scaled = (
        relative_gain([f * x for x in LOWER], [f * x for x in HIGHER], "lower").interval for f in (1.0, factor)
    )
    assert scaled == pytest.approx(gain, rel=1e-6)


def test_a_figure_that_is_not_positive_has_no_gain():
    gain = relative_gain([-0.1, 0.0, -0.3], [1.0, 1.1, 0.9], "lower")
    assert (gain.value, gain.interval) == (None, None)
    assert gain.method == "none: its mean is -0.1333, not positive"


def test_a_gain_without_an_interval_says_why():
    few = relative_gain([1.0, None, 1.0], [2.0, 1.0, 2.0], "lower")
    assert (few.value, few.interval, few.n, few.dropped) == (0.5, None, 2, 1)
    assert few.method == "none: 2 common seeds; the interval of a relative gain needs 3"
    near_zero = relative_gain([1.0, 2.0, 3.0], [-1.0, 0.1, 1.5], "lower")
    assert (near_zero.interval, near_zero.method) == (
        None,
        "none: the baseline's mean is not distinguishable from zero",
    )
    negative = relative_gain([1.0, 2.0, 3.0], [-1.0, -2.0, -1.0], "lower")
    assert (negative.value, negative.method) == (None, "none: the baseline's mean is -1.333, not positive")
