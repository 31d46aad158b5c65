"""Importance sampling over log-SNR: unbiased for any density, better with a fitted one; what low discrepancy saves."""

import math
from typing import Literal

import pytest
import torch

from moeframe.diffusion import per_image
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.importance import LogSnrDensity, fit_density
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert
from moeframe_builtin.schedules.linear import LinearSchedule

STREAMS = Streams(9)
SCHEDULE = LinearSchedule(LinearSchedule.Config(log_snr_min=-10, log_snr_max=8))
IMAGE = ImageShape(1, 2, 2, 32)
SKEWED = LogSnrDensity((8.0, 3.0, 2.0, -10.0), (0.2, 0.7, 0.1))


class PeakedExpert(GaussianExpert):
    """The true velocity but for a mistake in a narrow range of noise levels."""

    class Config(GaussianExpert.Config):
        type: Literal["peaked"] = "peaked"

    def forward(self, z, log_snr):
        return super().forward(z, log_snr) + 2 * per_image(torch.exp(-0.3 * (log_snr - 1) ** 2), z)


def peaked(image: ImageShape = IMAGE) -> MergedDenoiser:
    return MergedDenoiser([PeakedExpert(PeakedExpert.Config(std=0.2), image=image)])


def images(n: int, repeat: int, purpose: str = "pixels", image: ImageShape = IMAGE) -> torch.Tensor:
    pixels = 0.2 * STREAMS.normal((n, *image.tensor_shape), purpose, repeat)
    return ((pixels + 1) * image.levels / 2).long().clamp(0, image.levels - 1)


def bound_of(model, levels, repeat: int, density=None, times=None, image: ImageShape = IMAGE) -> Bound:
    n = len(levels)
    items = Trajectories.numbered(STREAMS, repeat * n, (repeat + 1) * n)
    times = STREAMS.low_discrepancy(n, "times", repeat) if times is None else times
    return continuous_bound(model, SCHEDULE, image, levels, times, items, density)


@pytest.fixture(scope="module")
def fitted() -> LogSnrDensity:
    return fit_density(bound_of(peaked(), images(512, 0, "pilot"), 99), SCHEDULE)


def test_the_uniform_density_is_linear_in_time():
    times = STREAMS.low_discrepancy(100, "t")
    density = LogSnrDensity.uniform(SCHEDULE)
    assert torch.equal(density.log_snr(times), 8 - 18 * times)
    assert torch.equal(density.inverse(times), torch.full((100,), 18.0))


def test_points_follow_the_density_and_fall_with_time():
    times = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    log_snr = SKEWED.log_snr(times)
    assert bool((log_snr.diff() < 0).all())
    assert (float(log_snr.max()), float(log_snr.min())) == pytest.approx((8, -10), abs=0.02)
    shares = [float(((log_snr < high) & (log_snr >= low)).double().mean()) for high, low in ((8, 3), (3, 2), (2, -10))]
    assert shares == pytest.approx([0.2, 0.7, 0.1], abs=1e-3)


@pytest.mark.parametrize("time", [0.0, 0.2, 0.9, 1 - 2**-24])
def test_ends_and_edges_lie_inside_the_range(time):
    log_snr = float(SKEWED.log_snr(torch.tensor([time])))
    assert -10 <= log_snr <= 8
    assert log_snr == pytest.approx({0.0: 8, 0.2: 3, 0.9: 2, 1 - 2**-24: -10}[time], abs=1e-4)


@pytest.mark.parametrize("integrand", [torch.ones_like, torch.sigmoid, lambda log_snr: torch.exp(-(log_snr**2))])
def test_weighted_points_integrate_over_log_snr_whatever_the_density(integrand):
    times = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    log_snr = torch.linspace(-10, 8, 100_001, dtype=torch.float64)
    truth = float(torch.trapezoid(integrand(log_snr), log_snr))
    found = float((SKEWED.inverse(times) * integrand(SKEWED.log_snr(times))).mean())
    assert found == pytest.approx(truth, rel=1e-6)


def test_the_fitted_density_is_high_where_the_mistake_is_and_nowhere_near_zero(fitted):
    widths = -torch.tensor(fitted.edges).diff()
    density = torch.tensor(fitted.masses) / widths
    middles = torch.tensor(fitted.edges[:-1]) - widths / 2
    assert float(density[(middles - 1).abs().argmin()]) > 3 * float(density[-1])
    assert float(density.min()) >= 0.25 / 18 * (1 - 1e-6)
    assert sum(fitted.masses) == pytest.approx(1)
    assert (fitted.edges[0], fitted.edges[-1]) == (8.0, -10.0)


def test_a_pilot_without_scatter_leaves_the_density_uniform():
    flat = torch.ones(64)
    pilot = Bound(flat, flat, flat, torch.linspace(-10, 8, 64), 64)
    assert fit_density(pilot, SCHEDULE) == LogSnrDensity.uniform(SCHEDULE)


def test_a_small_pilot_makes_few_bins():
    pilot = bound_of(peaked(), images(20, 0), 0)
    assert len(fit_density(pilot, SCHEDULE).masses) == 2
    assert fit_density(bound_of(peaked(), images(3, 0), 0), SCHEDULE).masses == pytest.approx([1])


@pytest.fixture(scope="module")
def repeated(fitted) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Means over fresh images and draws, and the standard error that each claims; 200 repeats."""
    found = {}
    for name, density in (("uniform", None), ("fitted", fitted)):
        bounds = [bound_of(peaked(), images(64, repeat), repeat, density) for repeat in range(200)]
        means = torch.stack([bound.total.double().mean() for bound in bounds])
        found[name] = (means, torch.tensor([standard_error([bound]) for bound in bounds]))
    return found


def test_the_fitted_density_is_unbiased_and_has_a_smaller_variance(repeated):
    uniform, fitted = repeated["uniform"][0], repeated["fitted"][0]
    error = math.sqrt(float(uniform.var() + fitted.var()) / 200)
    assert abs(float(uniform.mean() - fitted.mean())) < 3 * error
    assert float(fitted.var()) < 0.65 * float(uniform.var())


@pytest.mark.parametrize("density", ["uniform", "fitted"])
def test_the_standard_error_matches_the_spread_with_and_without_weights(repeated, density):
    means, claimed = repeated[density]
    assert float(claimed.mean()) == pytest.approx(float(means.std()), rel=0.15)


@pytest.mark.slow
def test_low_discrepancy_times_have_a_thirtieth_of_the_variance_of_independent_ones():
    """64 evaluations of the true model of 256 Gaussian pixels."""
    image = ImageShape(1, 16, 16, 16)
    model = MergedDenoiser([GaussianExpert(GaussianExpert.Config(std=0.2), image=image)])
    spread = {}
    for name, draw in (
        ("even", lambda repeat: STREAMS.low_discrepancy(64, "even", repeat)),
        ("independent", lambda repeat: STREAMS.uniform((64,), "independent", repeat)),
    ):
        means = [
            bound_of(model, images(64, repeat, image=image), repeat, times=draw(repeat), image=image).diffusion.mean()
            for repeat in range(100)
        ]
        spread[name] = float(torch.stack(means).double().var())
    assert spread["independent"] / spread["even"] >= 30
