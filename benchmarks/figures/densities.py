"""Mixtures of isotropic Gaussians in numpy alone: what the engine's likelihoods are held against.

Nothing here goes through velocities or gates: densities of the noised data, their score, and expectations over noise by
quadrature.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import logsumexp, roots_genlaguerre

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """Σ share_k N(mean_k 1, std_k² I) in n dimensions, seen through z = α x + σ ε."""

    means: tuple[float, ...]
    stds: tuple[float, ...]
    shares: tuple[float, ...]

    def _parts(self, log_snr: float) -> tuple[Array, Array]:
        """Mean and variance of a dimension of z, part by part."""
        a2 = 1 / (1 + math.exp(-log_snr))
        return math.sqrt(a2) * np.array(self.means), a2 * np.array(self.stds) ** 2 + 1 - a2

    def _log_joint(self, z: Array, log_snr: float) -> Array:
        """log share_k N(z; part k), (images, parts)."""
        means, variances = self._parts(log_snr)
        squares = (z[:, None, :] - means[:, None]) ** 2
        each = -0.5 * (squares.sum(-1) / variances + z.shape[1] * np.log(2 * math.pi * variances))
        return np.log(self.shares) + each

    def log_density(self, z: Array, log_snr: float = math.inf) -> Array:
        """log p(z) of (images, dims) at a log-SNR, nats; of the data themselves if none is given."""
        return np.asarray(logsumexp(self._log_joint(z, min(log_snr, 700.0)), axis=1))

    def score(self, z: Array, log_snr: float) -> tuple[Array, Array]:
        """∇ log p(z), (images, dims), and Δ log p(z), (images,)."""
        means, variances = self._parts(log_snr)
        joint = self._log_joint(z, log_snr)
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        slopes = -(z[:, None, :] - means[:, None]) / variances[:, None]
        slope = (share[:, :, None] * slopes).sum(1)
        curvature = (share * ((slopes**2).sum(-1) - z.shape[1] / variances)).sum(1) - (slope**2).sum(1)
        return slope, curvature

    def denoising_nats(self, x: Array, log_snr: float) -> float:
        """½ E‖ε - ε̂‖² of one image with the true denoiser ε̂ = -σ ∇ log p(z)."""
        noise, chance = noise_nodes(x)
        a, s = _scales(log_snr)
        slope, _ = self.score(a * x + s * noise, log_snr)
        return float(0.5 * (chance * ((noise + s * slope) ** 2).sum(1)).sum())

    def divergence_from_density(self, x: Array, log_snr: float) -> float:
        """E log q(z | x) / p(z) of one image. Its derivative by log-SNR is `denoising_nats` (I-MMSE, pointwise)."""
        noise, chance = noise_nodes(x)
        a, s = _scales(log_snr)
        log_q = -0.5 * ((noise**2).sum(1) + len(x) * math.log(2 * math.pi * s**2))
        return float((chance * (log_q - self.log_density(a * x + s * noise, log_snr))).sum())

    def flow_bits(self, x: Array, low: float, high: float) -> Array:
        """-log2 of the density that the probability-flow ODE gives to (images, dims) x, per dimension.

        dz/dλ = ½ σ² (z + ∇ log p), from N(0, I) at log-SNR `low` to `high`, where x = z / α; scipy's DOP853.
        """
        n, d = x.shape
        a, _ = _scales(high)

        def slope(log_snr: float, state: Array) -> Array:
            z = state[: n * d].reshape(n, d)
            s2 = 1 / (1 + math.exp(log_snr))
            gradient, curvature = self.score(z, log_snr)
            return 0.5 * s2 * np.concatenate([(z + gradient).ravel(), d + curvature])

        start = np.concatenate([(a * x).ravel(), np.zeros(n)])
        end = solve_ivp(slope, (high, low), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        z, growth = end[: n * d].reshape(n, d), end[n * d :]
        log_p = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1) + growth + d * math.log(a)
        return -log_p / (d * math.log(2))


def noise_nodes(x: Array) -> tuple[Array, Array]:
    """Nodes (nodes, dims) and weights of ε ~ N(0, I) for what depends on its length and its parts along 1 and x alone.

    Along 1, where a mixture's posterior turns steeply, equidistant nodes, which converge geometrically; in the other
    part and in the length, which enter smoothly, Gauss-Hermite and Gauss-Laguerre.
    """
    d = len(x)
    one = np.full(d, d**-0.5)
    rest = x - (x @ one) * one
    along = rest / np.linalg.norm(rest)
    line = np.linspace(-8, 8, 101)
    chance = np.exp(-0.5 * line**2)
    part, share = np.polynomial.hermite_e.hermegauss(6)
    if d == 2:
        radius, mass, across = np.zeros(1), np.ones(1), np.zeros(d)
    else:
        halves, mass = roots_genlaguerre(6, (d - 2) / 2 - 1)  # half of χ² with d - 2 degrees of freedom
        radius = np.sqrt(2 * halves)
        across = np.linspace(-1, 1, d) ** 3  # any direction off both
        for direction in (one, along):
            across -= (across @ direction) * direction
        across /= np.linalg.norm(across)
    first, second, third = (grid.ravel() for grid in np.meshgrid(line, part, radius, indexing="ij"))
    weights = (chance[:, None, None] * share[None, :, None] * mass[None, None, :]).ravel()
    return first[:, None] * one + second[:, None] * along + third[:, None] * across, weights / weights.sum()


def decoder_nats(level: int, n_levels: int, log_snr: float) -> float:
    """-E log p(level | z) of one pixel, p(level | z) ∝ N(z / α; centre, σ² / α²); trapezoids over ± 9 of the noise."""
    noise = np.linspace(-9, 9, 2001)
    chance = np.exp(-0.5 * noise**2)
    centres = (2 * np.arange(n_levels) + 1) / n_levels - 1
    spread = math.exp(-log_snr / 2)
    logits = -0.5 * ((centres[level] + spread * noise[:, None] - centres) / spread) ** 2
    return float((chance * (logsumexp(logits, axis=1) - logits[:, level])).sum() / chance.sum())


def prior_nats(x: Array, log_snr: float) -> float:
    """KL(q(z | x) ‖ N(0, I))."""
    a, s = _scales(log_snr)
    return float(0.5 * ((a * x) ** 2 + s**2 - 1 - 2 * math.log(s)).sum())


def _scales(log_snr: float) -> tuple[float, float]:
    return math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))
