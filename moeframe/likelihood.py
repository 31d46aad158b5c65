"""The continuous-time variational bound on -log2 p(x), in bits per dimension (VDM, Kingma et al. 2021, eqs. 11-18).

bound = [ recon + KL(q(z_λmin | x) ‖ N(0, I)) + ½ ∫ E‖ε - ε̂‖² dλ over (λmin, λmax) ] / (D ln 2)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moeframe.diffusion import (
    add_noise,
    bits_per_dim,
    diffusion_nats,
    prior_nats,
    reconstruction_nats,
    to_pixels,
    velocity_of,
)
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.randomness import Trajectories
from moeframe.shapes import Levels, LogSnr, PerItem, Times


@dataclass(frozen=True)
class Bound:
    """The parts of the bound per image, bits/dim, and the log-SNR at which each diffusion term was drawn."""

    reconstruction: PerItem
    prior: PerItem
    diffusion: PerItem
    log_snr: LogSnr

    @property
    def total(self) -> PerItem:
        """Upper bound on -log2 p(x) / D of each image."""
        return self.reconstruction + self.prior + self.diffusion

    @classmethod
    def concatenate(cls, parts: list["Bound"]) -> "Bound":
        """The bounds of several batches as one."""
        return cls(
            torch.cat([part.reconstruction for part in parts]),
            torch.cat([part.prior for part in parts]),
            torch.cat([part.diffusion for part in parts]),
            torch.cat([part.log_snr for part in parts]),
        )


_NEIGHBOURS = 8


def standard_error(repeats: Sequence[Bound]) -> float:
    """Standard error over images of the mean total, from one or more draws of each image at low-discrepancy times.

    The times of a draw share out the range evenly, so what the integrand owes to its time is no error of the mean. Each
    total therefore counts as its distance from those of its neighbours in log-SNR; NaN for a single image.
    """
    residuals = torch.stack([_beside_neighbours(bound) for bound in repeats]).mean(0)
    return math.sqrt(float(residuals.square().mean()) / len(residuals))


def _beside_neighbours(bound: Bound) -> PerItem:
    order = bound.log_snr.argsort()
    total = bound.total.double()
    residuals = torch.empty_like(total)
    for block in order.tensor_split(max(1, len(order) // _NEIGHBOURS)):
        correction = math.sqrt(len(block) / (len(block) - 1)) if len(block) > 1 else math.nan
        residuals[block] = correction * (total[block] - total[block].mean())
    return residuals


@torch.no_grad()
def continuous_bound(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    times: Times,
    items: Trajectories,
) -> Bound:
    """One unbiased draw of the bound for each image, at its own log-SNR λ = λmax - (λmax - λmin) t.

    The schedule gives the range alone, so that models with different schedules over one range are measured at the same
    noise levels. The draw stands for the whole integral: ½ ‖ε - ε̂‖² · (λmax - λmin). `levels` and `times` lie on the
    model's device; noise is addressed by `items`, so that two models see the same.
    """
    x = to_pixels(levels, image.levels)
    n_dims = image.n_dims

    low, high = schedule.log_snr_min, schedule.log_snr_max
    log_snr = high - (high - low) * times
    noise = items.normal(image.tensor_shape, "bound/noise").to(x)
    z = add_noise(x, noise, log_snr)
    predicted = denoiser(z, log_snr, items).velocity
    diffusion = (high - low) * diffusion_nats(velocity_of(x, noise, log_snr), predicted, log_snr)

    cleanest, noisiest = torch.full_like(times, high), torch.full_like(times, low)
    z_cleanest = add_noise(x, items.normal(image.tensor_shape, "bound/reconstruction").to(x), cleanest)
    reconstruction = reconstruction_nats(levels, z_cleanest, cleanest, image.levels)

    return Bound(
        reconstruction=bits_per_dim(reconstruction, n_dims),
        prior=bits_per_dim(prior_nats(x, noisiest), n_dims),
        diffusion=bits_per_dim(diffusion, n_dims),
        log_snr=log_snr,
    )
