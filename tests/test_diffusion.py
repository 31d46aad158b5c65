"""The theory: pixels, parametrisations, sampler steps and the terms of the bound."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.diffusion import (
    add_noise,
    alpha,
    ancestral_step,
    bits_per_dim,
    ddim_step,
    diffusion_nats,
    image_from_velocity,
    noise_from_image,
    noise_from_velocity,
    prior_nats,
    reconstruction_nats,
    sigma,
    to_levels,
    to_pixels,
    velocity_from_image,
    velocity_from_noise,
    velocity_of,
)

log_snrs = st.floats(-12, 12)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(log_snr: float, n: int = 5) -> torch.Tensor:
    return torch.full((n,), log_snr, dtype=torch.float64)


# pixels


@pytest.mark.parametrize("n_levels", [2, 16, 17, 256, 65536])
def test_every_level_survives_the_way_to_pixels_and_back(n_levels):
    levels = torch.arange(n_levels).view(1, 1, 1, -1)
    pixels = to_pixels(levels, n_levels)
    assert torch.equal(to_levels(pixels, n_levels), levels)
    assert pixels.abs().max() < 1
    assert pixels.mean().abs() < 1e-6


def test_levels_of_8_bits_become_the_pixels_of_wider_ones():
    levels = torch.arange(256).view(1, 1, 1, -1)
    assert torch.equal(to_pixels(levels.byte(), 256), to_pixels(levels, 256))


@settings(deadline=None)
@given(n_levels=st.integers(2, 4096), offset=st.floats(-0.45, 0.45), data=st.data())
def test_a_pixel_within_half_a_bin_of_a_centre_has_that_level(n_levels, offset, data):
    level = torch.tensor([[[[data.draw(st.integers(0, n_levels - 1))]]]])
    assert torch.equal(to_levels(to_pixels(level, n_levels) + offset * 2 / n_levels, n_levels), level)


def test_pixels_outside_the_range_get_the_outermost_level():
    assert to_levels(torch.tensor([[[[-3.0, -1.0, 1.0, 3.0]]]]), 17).flatten().tolist() == [0, 0, 16, 16]


# parametrisations


@settings(deadline=None)
@given(log_snr=log_snrs)
def test_alpha_and_sigma_are_the_variance_preserving_pair_of_the_log_snr(log_snr):
    a, s = alpha(at(log_snr)), sigma(at(log_snr))
    assert torch.allclose(a**2 + s**2, at(1.0))
    assert torch.allclose((a**2 / s**2).log(), at(log_snr))


@settings(deadline=None)
@given(log_snr=log_snrs, seed=st.integers(0, 1000))
def test_the_true_velocity_gives_back_image_and_noise(log_snr, seed):
    x, noise, where = normal(5, 2, 3, 4, seed=seed), normal(5, 2, 3, 4, seed=seed + 1), at(log_snr)
    z, velocity = add_noise(x, noise, where), velocity_of(x, noise, where)
    assert torch.allclose(image_from_velocity(velocity, z, where), x, atol=1e-12)
    assert torch.allclose(noise_from_velocity(velocity, z, where), noise, atol=1e-12)
    assert torch.allclose(velocity_from_image(x, z, where), velocity, atol=1e-9)
    assert torch.allclose(velocity_from_noise(noise, z, where), velocity, atol=1e-9)
    assert torch.allclose(noise_from_image(x, z, where), noise, atol=1e-9)


def test_each_image_is_noised_at_its_own_log_snr():
    x, noise, log_snr = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), torch.tensor([-5.0, 0.0, 5.0]).double()
    z = add_noise(x, noise, log_snr)
    alone = [add_noise(x[i : i + 1], noise[i : i + 1], log_snr[i : i + 1]) for i in range(3)]
    assert torch.equal(z, torch.cat(alone))


# sampler steps


@settings(deadline=None)
@given(log_snr=st.floats(-10, 8), step=st.floats(0.01, 10))
def test_ddim_with_the_true_image_stays_on_the_line_of_its_noise(log_snr, step):
    x, noise = normal(5, 1, 2, 2), normal(5, 1, 2, 2, seed=1)
    here, there = at(log_snr), at(log_snr + step)
    stepped = ddim_step(add_noise(x, noise, here), x, here, there)
    assert torch.allclose(stepped, add_noise(x, noise, there), atol=1e-9)


@settings(deadline=None)
@given(log_snr=st.floats(-10, 8), step=st.floats(0.01, 10))
def test_an_ancestral_step_with_the_true_image_has_the_marginal_of_the_next_level(log_snr, step):
    x, noise = normal(5, 1, 2, 2), normal(5, 1, 2, 2, seed=1)
    here, there = at(log_snr), at(log_snr + step)
    z, none = add_noise(x, noise, here), torch.zeros_like(x)
    mean = ancestral_step(z, x, none, here, there)
    per_noise = (mean - alpha(there).view(-1, 1, 1, 1) * x) / noise  # what is left of the old noise
    fresh = ancestral_step(z, x, torch.ones_like(x), here, there) - mean
    assert torch.allclose((per_noise**2 + fresh**2).sqrt(), sigma(there).view(-1, 1, 1, 1).expand_as(x))


# the bound


def test_the_diffusion_term_is_half_the_squared_error_of_the_noise():
    x, noise, predicted = (normal(5, 2, 3, 3, seed=i) for i in range(3))
    log_snr = torch.linspace(-8, 8, 5, dtype=torch.float64)
    z, velocity = add_noise(x, noise, log_snr), velocity_of(x, noise, log_snr)
    error = noise - noise_from_velocity(predicted, z, log_snr)
    assert torch.allclose(diffusion_nats(velocity, predicted, log_snr), 0.5 * (error**2).flatten(1).sum(1))


def test_the_prior_term_is_the_divergence_from_a_standard_normal():
    x, log_snr = normal(5, 2, 3, 3), torch.linspace(-12, 4, 5, dtype=torch.float64)
    q = torch.distributions.Normal(alpha(log_snr).view(-1, 1, 1, 1) * x, sigma(log_snr).view(-1, 1, 1, 1).expand_as(x))
    p = torch.distributions.Normal(torch.zeros_like(x), torch.ones_like(x))
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    assert torch.allclose(prior_nats(x, log_snr), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(n_levels=st.sampled_from([2, 16, 17, 256]), log_snr=st.floats(-5, 14))
def test_the_decoder_is_a_distribution_over_levels(n_levels, log_snr):
    levels = torch.arange(n_levels).view(-1, 1, 1, 1)
    z = torch.full((n_levels, 1, 1, 1), 0.3, dtype=torch.float64)
    assert float((-reconstruction_nats(levels, z, at(log_snr, n_levels), n_levels)).exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_the_decoder_is_sure_of_every_level_when_there_is_hardly_any_noise(n_levels):
    levels = torch.arange(n_levels).view(-1, 1, 1, 1)
    log_snr = at(16, n_levels)
    z = alpha(log_snr).view(-1, 1, 1, 1) * to_pixels(levels, n_levels).double()
    assert float(reconstruction_nats(levels, z, log_snr, n_levels).max()) < 1e-6
    wrong = (levels + 1) % n_levels
    assert float(reconstruction_nats(wrong, z, log_snr, n_levels).min()) > 100


def test_without_signal_the_decoder_costs_the_uniform_code():
    levels = torch.randint(0, 17, (3, 1, 4, 4))
    nats = reconstruction_nats(levels, normal(3, 1, 4, 4), at(-40.0, 3), 17)
    assert bits_per_dim(nats, 16).tolist() == pytest.approx([math.log2(17)] * 3)


def test_without_noise_the_decoder_costs_nothing():
    levels = torch.randint(0, 256, (3, 1, 4, 4))
    x, log_snr = to_pixels(levels, 256), torch.full((3,), 18.0)
    assert float(reconstruction_nats(levels, alpha(log_snr).view(-1, 1, 1, 1) * x, log_snr, 256).max()) < 1e-6


def test_bits_per_dim_divides_by_channels_and_pixels():
    levels = torch.randint(0, 256, (2, 3, 4, 5))
    nats = reconstruction_nats(levels, normal(2, 3, 4, 5), at(-40.0, 2), 256)
    assert bits_per_dim(nats, 3 * 4 * 5).tolist() == pytest.approx([8.0, 8.0])
    assert bits_per_dim(nats, 4 * 5).tolist() == pytest.approx([24.0, 24.0])  # bits per pixel: three times too many
