"""The parts of a bound per image, the terms at the ends of the range, and the standard error of a mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moeframe.diffusion import add_noise, bits_per_dim, prior_nats, reconstruction_nats, to_pixels
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.randomness import Trajectories
from moeframe.shapes import Levels, LogSnr, PerItem


@dataclass(frozen=True)
class Bound:
    """The parts of the bound per image, bits/dim, and their cost."""

    reconstruction: PerItem
    prior: PerItem
    diffusion: PerItem
    log_snr: LogSnr
    """Of each image's diffusion term; of its first where it has several, whose places follow from that of the first."""
    network_calls: int
    """Expert evaluations, summed over the images."""

    @property
    def total(self) -> PerItem:
        """Upper bound on -log2 p(x) / D of each image."""
        return self.reconstruction + self.prior + self.diffusion

    @classmethod
    def concatenate(cls, parts: list["Bound"]) -> "Bound":
        """Join the bounds of several batches."""
        return cls(
            torch.cat([part.reconstruction for part in parts]),
            torch.cat([part.prior for part in parts]),
            torch.cat([part.diffusion for part in parts]),
            torch.cat([part.log_snr for part in parts]),
            sum(part.network_calls for part in parts),
        )


@dataclass(frozen=True)
class EndTerms:
    """The decoder's and the prior's terms of a bound, bits/dim; equal in continuous and discrete time."""

    reconstruction: PerItem
    prior: PerItem


def end_terms(schedule: NoiseSchedule, image: ImageShape, levels: Levels, items: Trajectories) -> EndTerms:
    """One draw of -log p(x | z) at the cleanest log-SNR, and KL(q(z | x) ‖ N(0, I)) at the noisiest."""
    x = to_pixels(levels, image.levels)
    cleanest, noisiest = x.new_full((len(x),), schedule.log_snr_max), x.new_full((len(x),), schedule.log_snr_min)
    z = add_noise(x, items.normal(image.tensor_shape, "bound/reconstruction").to(x), cleanest)
    return EndTerms(
        bits_per_dim(reconstruction_nats(levels, z, cleanest, image.levels), image.n_dims),
        bits_per_dim(prior_nats(x, noisiest), image.n_dims),
    )


_WINDOW = 5
_LARGEST_LEVERAGE = 0.9


def standard_error(repeats: Sequence[Bound]) -> float:
    """Standard error over images of the mean total, from one or more draws of each image at low-discrepancy times.

    The times of a draw divide the range evenly, so the integrand's dependence on time adds no error to the mean. Each
    image therefore counts as its distance from a line through its neighbours in log-SNR. What is left is the offset u
    that the n times share: a sum over even points errs by (f(0) - f(1)) (u - ½) / n, of variance (f(0) - f(1))² / 12 n²
    over u, which matters for few images. The result is too large, not too small, where the integrand bends within five
    neighbours. Repeats must divide the range independently. NaN for a single image.
    """
    found = [_beside_neighbours(bound.total, bound.log_snr, repeat) for repeat, bound in enumerate(repeats)]
    residuals = torch.stack([one.residuals for one in found])
    excess = torch.stack([one.residuals.square() * one.share_of_neighbours for one in found])
    # Neighbours add to the square of a residual, but not to the product of residuals of two repeats.
    variances = residuals.mean(0).square() - excess.mean(0) / len(found)
    n = len(variances)
    offsets = sum(one.fall**2 for one in found) / len(found) ** 2 / (12 * n**2)
    return math.sqrt(max(float(variances.mean()), 0.0) / n + offsets)


def scatter_of_terms(bound: Bound) -> PerItem:
    """A rough, unbiased estimate of the variance of each diffusion term over images and noise at its log-SNR."""
    found = _beside_neighbours(bound.diffusion, bound.log_snr, 0)
    return found.residuals.square() * (1 - found.share_of_neighbours)


@dataclass(frozen=True)
class _Residuals:
    """Distances from what the neighbours predict, and the share of their variance that is the neighbours' own."""

    residuals: PerItem
    share_of_neighbours: PerItem
    fall: float
    """Rise of the fitted line from the smallest log-SNR to the largest; 0 where all are equal."""


def _beside_neighbours(values: PerItem, log_snr: LogSnr, seed: int) -> _Residuals:
    """Leave-one-out residuals of straight lines through windows of values in order of log-SNR, float64, on the CPU."""
    values, log_snr = values.double().cpu(), log_snr.double().cpu()
    n, size = len(log_snr), min(_WINDOW, len(log_snr))
    # Images at equal noise levels are put in random order: those beside one another in a folder may be alike.
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = shuffled[log_snr[shuffled].argsort(stable=True)]
    first = (torch.arange(n) - size // 2).clamp(0, n - size)
    window = order[first[:, None] + torch.arange(size)]
    at = log_snr[window]
    offsets, place = at - at.mean(1, keepdim=True), log_snr[order] - at.mean(1)
    # No slope for few images or a single noise level, where offsets are rounding errors.
    sloped = (at.amax(1) > at.amin(1)) & (n >= _WINDOW)
    spread = torch.where(sloped, offsets.square().sum(1), math.inf)
    fit = values[window].mean(1) + (values[window] * offsets).sum(1) / spread * place
    leverage = (1 / size + place**2 / spread).clamp(max=_LARGEST_LEVERAGE) if n > 1 else torch.ones(1)
    residuals = (values[order] - fit) / (1 - leverage)
    back = order.argsort()
    return _Residuals(residuals[back], leverage[back], float(fit[-1] - fit[0]) if bool(sloped.all()) else 0.0)
