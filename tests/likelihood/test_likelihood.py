"""The continuous bound: each term, its estimator, and the mistakes that others made with it."""

import math
from collections.abc import Callable

import pytest
import torch

from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.schedules.edm import EdmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule

STREAMS = Streams(0)
CLEANEST = 8.5  # there the noise is half a bin of 64 levels wide


def line(low: float, high: float) -> LinearSchedule:
    return LinearSchedule(LinearSchedule.Config(log_snr_min=low, log_snr_max=high))


def bound_of(model: MergedDenoiser, levels: torch.Tensor, image: ImageShape, schedule, start: int = 0) -> Bound:
    n = len(levels)
    items = Trajectories.numbered(STREAMS, start, start + n)
    return continuous_bound(model, schedule, image, levels, STREAMS.low_discrepancy(n, "times", start), items)


def average(draw: Callable[[int], torch.Tensor], repeats: int = 12) -> tuple[float, float]:
    """Mean and standard error over repeats of the mean of `draw(first item)`."""
    means = torch.stack([draw(10_000 * repeat).double().mean() for repeat in range(repeats)])
    return float(means.mean()), float(means.std()) / math.sqrt(repeats)


@pytest.fixture(scope="module")
def gaussian() -> Gaussian:
    return Gaussian(Gaussian.Config(size=16, levels=64, std=0.2, n_train=1, n_test=128))


@pytest.fixture(scope="module")
def levels(gaussian) -> torch.Tensor:
    return gaussian.split("test").images(torch.arange(128))


def model(gaussian: Gaussian, std: float = 0.2) -> MergedDenoiser:
    return MergedDenoiser([GaussianExpert(GaussianExpert.Config(std=std), image=gaussian.image)])


def test_the_bound_of_the_true_model_meets_the_exact_code_length(gaussian, levels):
    mean, error = average(
        lambda start: bound_of(model(gaussian), levels, gaussian.image, line(-12, CLEANEST), start).total
    )
    excess = mean - float(gaussian.bits_per_dim(levels).mean())
    assert error < 0.03
    lost_to_the_last_noise = 0.5 * math.log2(1 + math.exp(-CLEANEST) / 0.2**2)
    assert abs(excess - lost_to_the_last_noise) < 3 * error


def test_a_noisiest_level_that_is_no_standard_normal_costs_the_divergence_from_it(gaussian, levels):
    low = 2.0
    mean, error = average(
        lambda start: bound_of(model(gaussian), levels, gaussian.image, line(low, CLEANEST), start).total
    )
    signal = 1 / (1 + math.exp(-low))
    variance = signal * 0.2**2 + 1 - signal
    divergence = 0.5 * (variance - 1 - math.log(variance)) / math.log(2)
    excess = mean - float(gaussian.bits_per_dim(levels).mean()) - 0.5 * math.log2(1 + math.exp(-CLEANEST) / 0.2**2)
    assert error < 0.03
    assert abs(excess - divergence) < 3 * error + 0.03  # the divergence of these images is that of their spread


@pytest.mark.parametrize("std", [0.1, 0.4])
def test_a_wrong_model_costs_the_divergence_between_the_gaussians(gaussian, levels, std):
    right, wrong = model(gaussian), model(gaussian, std)

    def difference(start: int) -> torch.Tensor:
        bounds = [bound_of(m, levels, gaussian.image, line(-12, CLEANEST), start).total for m in (wrong, right)]
        return bounds[0] - bounds[1]

    mean, error = average(difference)
    ratio = (0.2**2 + math.exp(-CLEANEST)) / (std**2 + math.exp(-CLEANEST))
    divergence = 0.5 * (ratio - 1 - math.log(ratio)) / math.log(2)
    assert error < 0.03 * divergence
    assert abs(mean - divergence) < 3 * error


def test_the_total_does_not_depend_on_the_schedule_between_the_same_ends(gaussian, levels):
    edm = EdmSchedule(EdmSchedule.Config(sigma_min=math.exp(-5), sigma_max=math.exp(6)))
    one, two = (
        average(lambda start, s=schedule: bound_of(model(gaussian), levels, gaussian.image, s, start).total)
        for schedule in (edm, line(edm.log_snr_min, edm.log_snr_max))
    )
    assert max(one[1], two[1]) < 0.03
    assert abs(one[0] - two[0]) < 3 * math.hypot(one[1], two[1])


@pytest.mark.parametrize("std", [0.2, 0.57, 2.0])
def test_no_model_codes_uniform_levels_below_the_uniform_code(gaussian, std):
    uniform = (STREAMS.uniform((64, 1, 16, 16), "levels") * 64).long()
    mean, error = average(
        lambda start: bound_of(model(gaussian, std), uniform, gaussian.image, line(-12, CLEANEST), start).total
    )
    assert error < 0.08
    assert mean > 6 - 3 * error


def test_a_constant_image_has_no_negative_bits(gaussian):
    """Without dequantisation, densities of constant images give negative bits/dim; this decoder cannot."""
    constant = torch.full((16, 1, 16, 16), 32)
    sharp = MergedDenoiser([GaussianExpert(GaussianExpert.Config(mean=1 / 64, std=1e-4), image=gaussian.image)])
    bound = bound_of(sharp, constant, gaussian.image, line(-12, 16))
    assert 0 <= float(bound.total.mean()) < 0.05


def test_bits_are_per_channel_and_pixel():
    dataset = Gaussian(Gaussian.Config(size=8, channels=3, levels=64, std=0.2, n_train=1, n_test=128))
    levels = dataset.split("test").images(torch.arange(128))
    mean, error = average(
        lambda start: bound_of(model(dataset), levels, dataset.image, line(-12, CLEANEST), start).total
    )
    assert abs(mean - float(dataset.bits_per_dim(levels).mean())) < 3 * error + 0.01


def test_a_fixed_average_of_experts_is_bounded_by_the_average_of_their_bounds(gaussian, levels):
    """½‖ε - ε̂‖² is convex in the prediction, so merging with constant weights cannot cost more."""
    from moeframe_builtin.gates.uniform import UniformGate

    experts = [GaussianExpert(GaussianExpert.Config(std=s), image=gaussian.image) for s in (0.1, 0.5)]
    merged = MergedDenoiser(experts, UniformGate(UniformGate.Config(), image=gaussian.image, n_experts=2))
    each = [bound_of(merged.alone(k), levels, gaussian.image, line(-12, CLEANEST)).total for k in range(2)]
    assert bool((bound_of(merged, levels, gaussian.image, line(-12, CLEANEST)).total <= sum(each) / 2 + 1e-5).all())


def test_the_true_mixture_beats_each_of_its_experts():
    image = ImageShape(1, 4, 4, 64)
    parts = [GaussianExpert.Config(mean=m, std=0.1) for m in (-0.5, 0.5)]
    mixture = gaussian_mixture(parts, (0.5, 0.5), image)
    pixels = 0.1 * STREAMS.normal((512, 1, 4, 4), "pixels")
    pixels += torch.where(torch.arange(512) % 2 == 0, -0.5, 0.5).view(-1, 1, 1, 1)
    levels = ((pixels + 1) * 32).long().clamp(0, 63)
    mean, error = average(lambda start: bound_of(mixture, levels, image, line(-12, CLEANEST), start).total)
    # each slice's own Gaussian, and one bit per image, 1/16 bit per dimension, to say which slice it is
    truth = math.log2(0.1 * 32 * math.sqrt(2 * math.pi * math.e)) + 1 / 16
    sampling = 0.5**0.5 / math.log(2) / math.sqrt(levels.numel())  # of the entropy of this many Gaussian pixels
    assert abs(mean - truth) < 3 * math.hypot(error, sampling) + 0.02
    for k in range(2):
        assert float(bound_of(mixture.alone(k), levels, image, line(-12, CLEANEST)).total.mean()) > truth + 1


def test_the_bound_of_an_image_does_not_depend_on_its_batch(gaussian, levels):
    times, schedule = STREAMS.low_discrepancy(8, "times"), line(-10, 10)
    whole = continuous_bound(
        model(gaussian), schedule, gaussian.image, levels[:8], times, Trajectories.numbered(STREAMS, 0, 8)
    )
    parts = [
        continuous_bound(
            model(gaussian),
            schedule,
            gaussian.image,
            levels[i : i + 1],
            times[i : i + 1],
            Trajectories.numbered(STREAMS, i, i + 1),
        )
        for i in range(8)
    ]
    joined = Bound.concatenate(parts)
    for name in ("reconstruction", "prior", "diffusion", "log_snr", "total"):
        assert torch.allclose(getattr(joined, name), getattr(whole, name), atol=1e-6)


@pytest.mark.parametrize(("n", "draws"), [(30, 1), pytest.param(64, 3, marks=pytest.mark.slow)])
def test_the_standard_error_matches_the_spread_over_fresh_images_and_draws(gaussian, n, draws):
    """In 64 dimensions, where few images leave a quarter of the variance to the offset that their times share."""
    means, claimed, image = [], [], ImageShape(1, 8, 8, 32)
    for repeat in range(200):
        levels = ((0.2 * STREAMS.normal((n, 1, 8, 8), "pixels", repeat) + 1) * 16).long()
        starts = [10_000 * repeat + n * draw for draw in range(draws)]
        bounds = [bound_of(model(gaussian), levels, image, line(-10, 7), start) for start in starts]
        means.append(torch.stack([bound.total.mean() for bound in bounds]).mean())
        claimed.append(standard_error(bounds))
    spread = float(torch.stack(means).std())
    assert sum(claimed) / len(claimed) == pytest.approx(spread, rel=0.15)


def test_a_single_image_has_no_standard_error(gaussian, levels):
    assert math.isnan(standard_error([bound_of(model(gaussian), levels[:1], gaussian.image, line(-10, 10))]))
