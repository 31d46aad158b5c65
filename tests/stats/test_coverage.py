"""Intervals cover at their stated rate, as in results/evaluation/coverage.json."""

import importlib.util
import sys
from pathlib import Path

import pytest

# by path: on sys.path the file would hide the package `coverage`
_spec = importlib.util.spec_from_file_location(
    "coverage_benchmark", Path(__file__).parents[2] / "benchmarks/coverage.py"
)
coverage_benchmark = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = coverage_benchmark
_spec.loader.exec_module(coverage_benchmark)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_t_interval_covers_at_its_stated_rate(n):
    assert coverage_benchmark.seeds(n, 2000).met


@pytest.mark.parametrize("n", [30, 100])
def test_the_interval_of_image_means_covers_at_its_smallest_n(n):
    assert coverage_benchmark.image_means(n, coverage_benchmark.GAMMA, True, 2000).met


def test_the_median_interval_covers_at_its_smallest_n():
    assert coverage_benchmark.medians(6, coverage_benchmark.LOGNORMAL, 2000).met


def test_wilsons_interval_covers_at_its_smallest_n_for_every_rate():
    assert coverage_benchmark.proportions(200, 20).met


def test_the_interval_of_a_relative_gain_covers_at_three_seeds():
    assert coverage_benchmark.gains(3, 0.02, 0.5, 2000).met


def test_bootstrap_intervals_cover_where_offered_and_not_at_five_images():
    at_100 = list(coverage_benchmark.bootstrap_means(100, coverage_benchmark.NORMAL, True, 2000))
    assert {one.interval.split()[0]: one.met for one in at_100 if one.offered} == {"percentile": True, "BCa": True}
    at_5 = coverage_benchmark.bootstrap_means(5, coverage_benchmark.NORMAL, True, 1600)
    assert not any(one.met or one.offered for one in at_5)


def test_a_percentile_interval_of_a_frechet_distance_never_holds_the_truth_at_100_images():
    percentile, _ = coverage_benchmark.bootstrap_frechet(100, 8, 50)
    assert percentile.coverage < 0.1


def test_identical_variants_are_called_different_in_at_most_one_table_of_twenty():
    assert coverage_benchmark.false_flags(6, 150, independent=False).tables_flagged <= 0.05 + 2 * 0.018
    assert coverage_benchmark.false_flags_fast(6, coverage_benchmark.NORMAL, required=True).met
