"""The Fréchet distance as mathematics: closed forms, torch-fidelity, its error and its limit, without a network."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from moeframe.randomness import Streams
from moeframe_builtin.metrics.inception_score import score_standard_error
from moeframe_builtin.metrics.kid import SUBSETS, mmd_standard_error, subset_mmd
from moeframe_builtin.metrics.support.frechet_distance import (
    Gaussian,
    distance_at_infinite_n,
    fewest_to_extrapolate,
    frechet_distance,
    frechet_estimate,
    gaussian_distance,
)


def rows(n: int, dims: int, name: str = "rows") -> torch.Tensor:
    return Streams(0).normal((n, dims), name, n)


def two_sets(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    return rows(n, 6, "first"), 1.5 * rows(200, 6, "second") + torch.arange(6) / 5


def test_the_distance_of_commuting_gaussians_is_the_closed_form():
    """‖μ1 - μ2‖² + Σ (σ1 - σ2)² in any rotated basis."""
    turn, _ = torch.linalg.qr(rows(8, 8).double())
    scales = torch.linspace(0.5, 3, 8).double(), torch.linspace(2, 0.1, 8).double()
    means = rows(2, 8, "means").double()
    one, two = (
        Gaussian.with_covariance(mean, turn * scale**2 @ turn.T) for mean, scale in zip(means, scales, strict=True)
    )
    closed = float((means[0] - means[1]).square().sum() + (scales[0] - scales[1]).square().sum())
    assert gaussian_distance(one, two) == pytest.approx(closed, rel=1e-8)


def test_the_distance_of_any_two_gaussians_is_that_of_the_matrix_root():
    one, two = (features.double() for features in two_sets())
    covariances = [np.cov(features.numpy(), rowvar=False) for features in (one, two)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    apart = ((one.mean(0) - two.mean(0)) ** 2).sum()
    closed = float(apart) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, two) == pytest.approx(closed, rel=1e-8)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("n", "tolerance"), [(300, 1e-8), (40, 1e-5)])
def test_the_distance_of_features_is_torch_fidelitys(n, tolerance):
    """Where images are fewer than features torch-fidelity's roots of rounded zeros limit the agreement."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    one, two = rows(n, 100, "first").double(), 1.5 * rows(n, 100, "second").double() + 0.1
    statistics = [fid_features_to_statistics(features) for features in (one, two)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(one, two) == pytest.approx(theirs, rel=tolerance)


def test_a_feature_that_never_varies_changes_nothing():
    one, two = two_sets()
    padded = [torch.cat([features, torch.full((len(features), 3), 0.7)], dim=1) for features in (one, two)]
    found, plain = frechet_estimate(*padded), frechet_estimate(one, two)
    assert found.value == pytest.approx(plain.value, rel=1e-8)
    assert found.standard_error == pytest.approx(plain.standard_error, rel=1e-8)


def test_images_that_are_all_equal_have_the_distance_of_their_means():
    assert frechet_distance(torch.zeros(5, 3), torch.ones(4, 3)) == pytest.approx(3)


def test_rows_fewer_than_features_and_more_meet_the_same_formula():
    """Both ways to the axes of the covariance."""
    features, other = rows(50, 20, "first").double(), rows(60, 20, "second").double()
    one = Gaussian.with_covariance(features.mean(0), torch.from_numpy(np.cov(features.numpy(), rowvar=False)))
    assert gaussian_distance(one, Gaussian.of(other)) == pytest.approx(frechet_distance(features, other), rel=1e-9)
    few = features[:20]
    one = Gaussian.with_covariance(few.mean(0), torch.from_numpy(np.cov(few.numpy(), rowvar=False)))
    assert gaussian_distance(one, Gaussian.of(other)) == pytest.approx(frechet_distance(few, other), rel=1e-9)


def left_out_variance(one: torch.Tensor, two: torch.Tensor) -> float:
    """Of the distance, by the delete-one jackknife, which the influence function is the limit of."""
    variance = 0.0
    for own, other in ((one, two), (two, one)):
        keep = ~torch.eye(len(own), dtype=torch.bool)
        left_out = torch.tensor([frechet_distance(own[mask], other) for mask in keep], dtype=torch.float64)
        variance += float((left_out - left_out.mean()).square().sum()) * (len(own) - 1) / len(own)
    return variance


def test_the_error_is_that_of_leaving_out_each_image_less_what_pairs_of_images_count_twice():
    one, two = rows(250, 4, "first").double(), 1.4 * rows(200, 4, "second").double() + 0.3
    halves = left_out_variance(one[:125], two[:100]) + left_out_variance(one[125:], two[100:])
    variance = 1.5 * left_out_variance(one, two) - 0.25 * halves / 2
    assert frechet_estimate(one, two).standard_error == pytest.approx(variance**0.5, rel=0.02)


def coverage(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """How often the interval holds the mean over these studies."""
    estimates = [frechet_estimate(one, two) for one, two in pairs]
    values = torch.tensor([one.value for one in estimates])
    errors = torch.tensor([one.standard_error for one in estimates])
    return float(((values - values.mean()).abs() < 1.96 * errors).double().mean())


@pytest.mark.slow
def test_the_interval_covers_the_mean_distance_at_its_n_in_95_percent_of_studies():
    scale = torch.linspace(0.5, 2, 8)
    assert coverage(
        (Streams(i).normal((400, 8), "one"), scale * Streams(i).normal((400, 8), "two") + 0.3) for i in range(2000)
    ) == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
def test_the_interval_of_equal_distributions_covers_as_well():
    """Without the correction in 99 percent: the influence of an image vanishes, its estimate does not."""
    assert coverage(
        (Streams(i).normal((400, 8), "one"), Streams(i).normal((400, 8), "two")) for i in range(2000)
    ) == pytest.approx(0.95, abs=0.015)


def test_at_infinite_n_the_distance_is_the_closed_form_where_that_at_n_is_not():
    """On average over studies: one study's own error stays."""
    n, dims, studies = 1000, 16, 20
    scale = torch.linspace(0.7, 1.5, dims)
    closed = float((scale - 1).square().sum() + dims * 0.2**2)
    at_n, infinite = [], []
    for i in range(studies):
        one, two = Streams(i).normal((n, dims), "one"), scale * Streams(i).normal((n, dims), "two") + 0.2
        at_n.append(frechet_distance(one, two) - closed)
        infinite.append(distance_at_infinite_n(one, two) - closed)
    error = float(np.std(infinite, ddof=1)) / studies**0.5
    assert abs(np.mean(infinite)) < 2.5 * error
    assert np.mean(at_n) > 3 * error


def test_the_distance_of_equal_distributions_is_zero_at_infinite_n():
    n, dims = 1000, 16
    pairs = [(Streams(i).normal((n, dims), "one"), Streams(i).normal((n, dims), "two")) for i in range(12)]
    infinite = [distance_at_infinite_n(one, two) for one, two in pairs]
    assert abs(np.mean(infinite)) < 0.1 * np.mean([frechet_distance(one, two) for one, two in pairs])


def test_extrapolation_needs_three_times_as_many_images_as_features():
    assert fewest_to_extrapolate(2048) == 6147


def test_the_error_of_the_squared_mmd_is_that_of_leaving_out_each_image():
    one, two = rows(60, 4, "first").double(), rows(60, 4, "second").double() + 0.5

    def squared_mmd(first: torch.Tensor, second: torch.Tensor) -> float:
        def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a @ b.T / 4 + 1) ** 3

        inside = [kernel(a, a).sum() - kernel(a, a).trace() for a in (first, second)]
        n, m = len(first), len(second)
        return float(inside[0] / (n * (n - 1)) + inside[1] / (m * (m - 1)) - 2 * kernel(first, second).mean())

    assert subset_mmd(one, two, 60)[0] == pytest.approx(squared_mmd(one, two), rel=1e-9)
    variance = 0.0
    for own, other in ((one, two), (two, one)):
        keep = ~torch.eye(len(own), dtype=torch.bool)
        left_out = torch.tensor([squared_mmd(own[mask], other) for mask in keep], dtype=torch.float64)
        variance += float((left_out - left_out.mean()).square().sum()) * (len(own) - 1) / len(own)
    assert mmd_standard_error(one, two) == pytest.approx(variance**0.5, rel=0.03)


def test_subsets_drawn_one_by_one_are_torch_fidelitys():
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    one, two = rows(90, 4, "first"), rows(70, 4, "second") + 0.5
    whole = kid_features_to_metric(one.double(), two.double(), kid_subsets=SUBSETS, kid_subset_size=30, verbose=False)
    theirs = whole[KEY_METRIC_KID_MEAN], whole[KEY_METRIC_KID_STD]
    assert subset_mmd(one, two, 30) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
def test_the_interval_of_the_kernel_distance_covers_in_95_percent_of_studies():
    values, errors = [], []
    for i in range(250):
        one, two = Streams(i).normal((200, 8), "one"), Streams(i).normal((200, 8), "two") + 0.4
        value, spread = subset_mmd(one, two, 50)
        values.append(value)
        errors.append((mmd_standard_error(one, two) ** 2 + spread**2 / SUBSETS) ** 0.5)
    found = torch.tensor(values)
    covered = float(((found - found.mean()).abs() < 1.96 * torch.tensor(errors)).double().mean())
    assert covered == pytest.approx(0.95, abs=0.025)


def test_the_interval_of_the_inception_score_covers_in_95_percent_of_studies():
    from moeframe_builtin.metrics.inception_score import inception_score

    logits = [3 * Streams(i).normal((400, 10), "logits") for i in range(500)]
    values = torch.tensor([inception_score(one, 4)[0] for one in logits])
    errors = torch.tensor([score_standard_error(one, 4) for one in logits])
    covered = float(((values - values.mean()).abs() < 1.96 * errors).double().mean())
    assert covered == pytest.approx(0.95, abs=0.025)
