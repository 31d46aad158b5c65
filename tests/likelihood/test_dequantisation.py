"""Dequantisation: noise in the bin of each level, and its share of the code length."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import truncnorm
from small_flows import SMALL, SQUARE, TIGHT, drawn_levels, line, numbered, ode, pixels_of, worst

from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.dequantisation import dequantise, truncated_normal, truncated_normal_entropy
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture


@pytest.mark.parametrize("reach", [1e-9, 1e-3, 0.3, 1.0, 3.0, 8.0, 30.0])
def test_the_entropy_of_the_truncated_normal_meets_quadrature(reach):
    mass = math.erf(reach / math.sqrt(2))
    height = 1 / (math.sqrt(2 * math.pi) * mass)

    def integrand(u: float) -> float:
        log_density = math.log(height) - 0.5 * u**2
        return -math.exp(log_density) * log_density

    span = min(reach, 12.0)
    area, _ = quad(integrand, -span, span, epsabs=0, epsrel=1e-12, limit=200)
    assert truncated_normal_entropy(reach) == pytest.approx(area, abs=1e-9)


@pytest.mark.parametrize("reach", [0.01, 1.0, 4.0, 37.0, 1e9])
def test_the_truncated_normal_is_sampled_by_its_inverse_distribution(reach):
    units = torch.linspace(-1, 1, 1001, dtype=torch.float64)[1:-1]
    expected = torch.from_numpy(truncnorm.ppf((units.numpy() + 1) / 2, -reach, reach))
    assert torch.allclose(truncated_normal(units, reach), expected, rtol=1e-6, atol=1e-9 * min(reach, 1.0))
    assert bool((truncated_normal(units, reach).diff() > 0).all())


@settings(deadline=None, max_examples=60)
@given(
    how=st.sampled_from(["uniform", "truncated_normal"]),
    n_levels=st.sampled_from([2, 17, 256, 32768]),
    log_snr=st.floats(-60, 60),
    seed=st.integers(0, 10_000),
)
def test_dequantised_pixels_stay_in_their_bins(how, n_levels, log_snr, seed):
    levels = torch.randint(n_levels, (3, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    items = Trajectories.numbered(Streams(seed), 0, 3)
    pixels = dequantise(levels, n_levels, how, log_snr, items).pixels
    assert torch.equal(((pixels + 1) * n_levels / 2).floor().long(), levels)


class Constant(Streams):
    """Uniform draws that are all the least or all the largest there can be."""

    def uniform(self, shape, purpose, *address):
        return torch.full(tuple(shape), self.seed * (1 - 2**-24))


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("how", ["uniform", "truncated_normal"])
@pytest.mark.parametrize("n_levels", [2, 17, 256, 32768])
def test_the_outermost_draws_stay_in_the_bin(how, end, n_levels):
    levels = torch.arange(n_levels).view(1, 1, 1, -1)
    items = Trajectories.numbered(Constant(end), 0, 1)
    pixels = dequantise(levels, n_levels, how, 5.0, items).pixels
    assert torch.equal(((pixels + 1) * n_levels / 2).floor().long(), levels)


def test_under_strong_noise_the_truncated_normal_is_uniform():
    levels = drawn_levels(4, SQUARE)
    uniform, truncated = (dequantise(levels, 64, how, -20.0, numbered(4)) for how in ("uniform", "truncated_normal"))
    assert worst(uniform.pixels, truncated.pixels) < 1e-6
    assert uniform.bits_per_dim == 5
    assert truncated.bits_per_dim == pytest.approx(5, abs=1e-6)


def test_uniform_noise_fills_the_bin_evenly():
    levels = torch.full((1000, 1, 4, 4), 5)
    offsets = (pixels_of(levels, replace(SMALL, levels=8), line(-5, 5)) + 1) * 4 - 5
    counts = torch.histc(offsets.float(), 10, 0, 1)
    assert float(((counts - 1600) ** 2 / 1600).sum()) < 27.9  # chi-square with 9 degrees of freedom, p = 0.001


def test_truncated_normal_noise_reaches_the_code_length_of_a_model_of_levels():
    """A model that knows the data to be four levels sees spikes: even noise over the bins leaves them."""
    image = ImageShape(1, 1, 1, 4)
    parts = [GaussianExpert.Config(mean=(2 * i + 1) / 4 - 1, std=1e-3) for i in range(4)]
    model, schedule = gaussian_mixture(parts, (0.25,) * 4, image), line(-10, 5)
    levels = torch.arange(4).repeat(50).view(-1, 1, 1, 1)
    solver = replace(TIGHT, rtol=1e-6, atol=1e-6)
    uniform, truncated = (
        ode(model, image, schedule, levels, dequantisation=how, solver=solver)
        for how in ("uniform", "truncated_normal")
    )
    assert float(truncated.total.mean()) == pytest.approx(2, abs=0.1)
    assert float(uniform.total.mean()) > float(truncated.total.mean()) + 0.2
    assert float(uniform.total.mean()) > 2
