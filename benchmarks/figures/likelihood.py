"""Figures about likelihood: each term of the bound against closed forms, and the bound against an exact entropy."""

import math

import numpy as np
import torch
from figures.merging import STREAMS, Values, worst
from scipy.special import log_softmax
from scipy.stats import norm
from torch import Tensor

from moeframe import diffusion
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.testing import GaussianExpert
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.schedules.linear import LinearSchedule

PIXEL = ImageShape(channels=1, height=1, width=1, levels=256)


def _legendre_nodes(n: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on (low, high)."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.tensor((nodes + 1) / 2 * (high - low) + low), torch.tensor(weights * (high - low) / 2)


def _normal_nodes(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights of N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


@torch.no_grad()
def diffusion_nats_of(x: Tensor, expert: GaussianExpert, low: float, high: float) -> Tensor:
    """½ ∫ E‖ε - ε̂‖² dλ of one-pixel images of value x, by quadrature over λ and ε through the engine's functions."""
    noise, chance = _normal_nodes(4)  # exact: the error is a square
    pixels, draws = x.repeat_interleave(4).view(-1, 1, 1, 1), noise.repeat(len(x)).view(-1, 1, 1, 1)
    total = torch.zeros_like(x)
    for value, weight in zip(*_legendre_nodes(160, low, high), strict=True):
        log_snr = value.repeat(len(pixels))
        z = diffusion.add_noise(pixels, draws, log_snr)
        nats = diffusion.diffusion_nats(diffusion.velocity_of(pixels, draws, log_snr), expert(z, log_snr), log_snr)
        total += weight * (nats.view(-1, 4) * chance).sum(1)
    return total


def gaussian_bound_against_closed_form() -> Values:
    """Bits/dim between quadrature through the engine and closed form; diffusion: ½ ln((1+s²e^λmax)/(1+s²e^λmin))."""
    std, low, high = 0.35, -9.0, 11.0
    nodes, chance = _normal_nodes(4)
    expert = GaussianExpert(GaussianExpert.Config(std=std), image=PIXEL)
    by_quadrature = float((chance * diffusion_nats_of(std * nodes, expert, low, high)).sum())
    closed = 0.5 * (math.log1p(std**2 * math.exp(high)) - math.log1p(std**2 * math.exp(low)))
    prior = float(
        (chance * diffusion.prior_nats((std * nodes).view(-1, 1, 1, 1), torch.full((4,), low).double())).sum()
    )
    signal, noise = 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(low))
    closed_prior = 0.5 * (signal * std**2 + noise - 1 - math.log(noise))
    nats = {"diffusion": by_quadrature - closed, "prior": prior - closed_prior}
    return {name: abs(value) / math.log(2) for name, value in nats.items()}


def reconstruction_against_brute_force() -> Values:
    """Largest difference, bits/dim, between the reconstruction term and a softmax over scipy's normal densities."""
    found = {}
    for n_levels in (16, 17, 256):
        levels = (STREAMS.uniform((64, 1, 2, 2), "levels") * n_levels).long()
        log_snr = torch.linspace(2, 12, 64, dtype=torch.float64)
        x = (2 * levels.double() + 1) / n_levels - 1
        z = diffusion.add_noise(x, STREAMS.normal(x.shape, "noise").double(), log_snr)
        a, s = (1 / np.sqrt(1 + np.exp(sign * log_snr.numpy())).reshape(-1, 1, 1, 1, 1) for sign in (-1, 1))
        centres = (np.arange(n_levels) + 0.5) * 2 / n_levels - 1
        log_p = log_softmax(norm.logpdf(z.numpy()[..., None], a * centres, s), axis=-1)
        own = torch.tensor(np.take_along_axis(log_p, levels.numpy()[..., None], -1)).flatten(1).sum(1)
        nats = diffusion.reconstruction_nats(levels, z, log_snr, n_levels)
        found[f"{n_levels} levels"] = worst(nats, -own) / (4 * math.log(2))
    return found


def expected_bound(expert: GaussianExpert, n_levels: int, low: float, high: float) -> Tensor:
    """Expected bound of a pixel of each level, (levels,), bits/dim: what continuous_bound estimates."""
    levels = torch.arange(n_levels)
    x = (2 * levels.double() + 1) / n_levels - 1
    prior = diffusion.prior_nats(x.view(-1, 1, 1, 1), torch.full((n_levels,), low, dtype=torch.float64))
    noise = torch.linspace(-8, 8, 161, dtype=torch.float64)  # equidistant: converges geometrically for a Gaussian
    reconstruction = torch.zeros_like(x)
    cleanest = torch.full((n_levels,), high, dtype=torch.float64)
    for draw, chance in zip(noise, torch.softmax(-0.5 * noise**2, 0), strict=True):
        z = diffusion.add_noise(x.view(-1, 1, 1, 1), draw.expand(n_levels, 1, 1, 1), cleanest)
        reconstruction += chance * diffusion.reconstruction_nats(levels.view(-1, 1, 1, 1), z, cleanest, n_levels)
    return (reconstruction + prior + diffusion_nats_of(x, expert, low, high)) / math.log(2)


def monte_carlo_bound_in_standard_errors() -> Values:
    """Mean of 64 Monte Carlo bounds minus the expected bound of the same images, in standard errors; Gaussian data."""
    dataset = Gaussian(Gaussian.Config(size=4, std=0.25, n_test=128))
    schedule = LinearSchedule(LinearSchedule.Config(log_snr_min=-9, log_snr_max=10))
    expert = GaussianExpert(
        GaussianExpert.Config(std=0.3), image=dataset.image
    )  # wrong on purpose: it still is a bound
    levels, repeats = dataset.split("test").images(torch.arange(128)).long(), 64
    exact = float(expected_bound(expert, 256, -9, 10)[levels].mean())
    means = torch.tensor(
        [
            float(
                continuous_bound(
                    MergedDenoiser([expert]),
                    schedule,
                    dataset.image,
                    levels,
                    STREAMS.low_discrepancy(128, "t", repeat),
                    Trajectories.numbered(STREAMS, 128 * repeat, 128 * (repeat + 1)),
                ).total.mean()
            )
            for repeat in range(repeats)
        ],
        dtype=torch.float64,
    )
    error = float(means.std()) / math.sqrt(repeats)
    return {"deviation": (float(means.mean()) - exact) / error}


def wide_range_bound_above_entropy() -> Values:
    """Expected bound of quantised Gaussian data (1024 levels, λ from -16 to 13.5) minus its entropy, bits/dim."""
    dataset = Gaussian(Gaussian.Config(levels=1024, std=0.2, n_train=1, n_test=1))
    chance = 2.0 ** -dataset.bits_per_dim(torch.arange(1024).view(-1, 1, 1, 1))
    expert = GaussianExpert(GaussianExpert.Config(std=0.2), image=PIXEL)
    bound = float((chance * expected_bound(expert, 1024, -16, 13.5)).sum())
    return {"gap": bound - dataset.entropy_bits_per_dim}
