"""Fréchet distance of two Gaussians and of two sets of features: its value, its error, and its limit at infinite N."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "_ features"]

BLOCK = 4096
"""Rows that are float64 at a time."""
BLOCKINGS = 3
"""Extrapolation goes through the distances of 1 .. 3 blocks."""


@dataclass(frozen=True)
class Gaussian:
    """Mean μ and covariance Σ = V diag(s²) Vᵀ, float64: orthonormal columns V, s > 0, nothing where Σ is zero."""

    mean: Float[Tensor, " features"]
    axes: Float[Tensor, "features rank"]
    scales: Float[Tensor, " rank"]

    @classmethod
    def of(cls, rows: Rows) -> "Gaussian":
        """Mean and unbiased covariance of at least two rows."""
        n, dims = rows.shape
        assert n > 1
        mean = torch.zeros(dims, dtype=torch.float64)
        for start in range(0, n, BLOCK):
            mean += rows[start : start + BLOCK].sum(dim=0, dtype=torch.float64) / n
        if n <= dims:  # far fewer sums than a covariance has
            _, scales, axes = torch.linalg.svd((rows.double() - mean) / math.sqrt(n - 1), full_matrices=False)
            sound = scales > dims * torch.finfo(scales.dtype).eps * scales[0]
            return cls(mean, axes[sound].T, scales[sound])
        covariance = torch.zeros(dims, dims, dtype=torch.float64)
        for block in _centred(rows, mean):
            covariance += block.T @ block
        return cls.with_covariance(mean, covariance / (n - 1))

    @classmethod
    def with_covariance(
        cls, mean: Float[Tensor, " features"], covariance: Float[Tensor, "features features"]
    ) -> "Gaussian":
        """The Gaussian of these float64 statistics."""
        values, axes = torch.linalg.eigh(covariance)
        sound = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
        return cls(mean, axes[:, sound], values[sound].sqrt())

    def overlap(self, other: "Gaussian") -> Float[Tensor, "rank others"]:
        """L1ᵀ L2 with L = V diag(s), so that Σ = L Lᵀ."""
        return self.scales[:, None] * (self.axes.T @ other.axes) * other.scales


@dataclass(frozen=True)
class Estimate:
    """A Fréchet distance and the standard error of it, both sets being random."""

    value: float
    standard_error: float


def gaussian_distance(first: Gaussian, second: Gaussian) -> float:
    """‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) (Dowson and Landau 1982; Heusel et al. 2017).

    With Σ = L Lᵀ the last trace is the sum of the singular values of L1ᵀ L2. The eigenvalues of Σ1 Σ2 would do too,
    but where fewer images than features leave most of them zero the square roots of their rounding errors add up.
    """
    return _distance(first, second, torch.linalg.svdvals(first.overlap(second)))


def frechet_distance(first: Rows, second: Rows) -> float:
    """The distance between the Gaussians of two sets of features, in float64."""
    return gaussian_distance(Gaussian.of(first), Gaussian.of(second))


def frechet_estimate(first: Rows, second: Rows) -> Estimate:
    """The distance and its standard error by the jackknife, corrected for its bias; rows in random order.

    The jackknife counts the variance that pairs of rows cause twice: at n rows it is A + 2B for a variance A + B, at
    n / 2 rows 2A + 8B (Efron and Stein 1981, of Hoeffding's decomposition). Without the correction it would be nearly
    twice the variance where both sets are of one law, so that A vanishes. That A >= 0 bounds the variance from below.
    The error is that about the mean distance at these n, which is above the distance at infinite n.
    """
    value, jackknife = _jackknife(first, second)
    half, other = len(first) // 2, len(second) // 2
    halves = (_jackknife(first[:half], second[:other])[1] + _jackknife(first[half:], second[other:])[1]) / 2
    return Estimate(value, math.sqrt(max(1.5 * jackknife - 0.25 * halves, jackknife / 2)))


def _jackknife(first: Rows, second: Rows) -> tuple[float, float]:
    """The distance and its variance by the infinitesimal jackknife (Efron 1982), both sets being random.

    A row x of the first set moves the distance by its influence over n,
    2 (μ1 - μ2)ᵀ(x - μ1) + (x - μ1)ᵀ (I - T) (x - μ1) - tr((I - T) Σ1),
    with T the optimal map from the first Gaussian to the second; a row of the second set likewise.
    """
    one, two = Gaussian.of(first), Gaussian.of(second)
    left, roots, right = torch.linalg.svd(one.overlap(two), full_matrices=False)
    shift = one.mean - two.mean
    variance = _influence(first, one, shift, left, roots).var() / len(first)
    variance += _influence(second, two, -shift, right.T, roots).var() / len(second)
    return _distance(one, two, roots), float(variance)


def fewest_to_extrapolate(dims: int) -> int:
    """The images from which on the smallest blocks have more of them than features: below that 1/N gives no line."""
    return BLOCKINGS * (dims + 1)


def distance_at_infinite_n(first: Rows, second: Rows) -> float:
    """The intercept of a line over 1/N through the mean distances of 1, 2 and 3 disjoint blocks of both sets.

    After Chong and Forsyth (2020), whose points are random subsets of the samples against a fixed reference. Both sets
    are cut here, so that the bias of both goes; and blocks that use each row once at every N halve the error of the
    intercept (measured for 16 and 64 features). Rows must be in random order, as many in both.
    """
    assert len(first) == len(second)
    inverse, means = [], []
    for blocks in range(1, BLOCKINGS + 1):
        n = len(first) // blocks
        starts = range(0, n * blocks, n)
        distances = [frechet_distance(first[start : start + n], second[start : start + n]) for start in starts]
        inverse.append(1 / n)
        means.append(sum(distances) / blocks)
    _slope, intercept = np.polyfit(np.array(inverse), np.array(means), deg=1)
    return float(intercept)


def _distance(first: Gaussian, second: Gaussian, roots: Tensor) -> float:
    apart = (first.mean - second.mean).square().sum()
    return float(apart + first.scales.square().sum() + second.scales.square().sum() - 2 * roots.sum())


def _centred(rows: Rows, mean: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].double() - mean


def _influence(rows: Rows, own: Gaussian, shift: Tensor, turn: Tensor, roots: Tensor) -> Tensor:
    """The influence of each row, up to a constant. With the SVD U R Wᵀ of L1ᵀ L2, xᵀ T x = ‖R^½ Uᵀ L1⁻¹ x‖²."""
    whiten = own.axes / own.scales @ turn
    return torch.cat(
        [
            2 * block @ shift + block.square().sum(dim=1) - (block @ whiten).square() @ roots
            for block in _centred(rows, own.mean)
        ]
    )
