"""Shared by samplers: the image prediction of a step, and the deterministic trajectory (DDIM)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from moeframe.diffusion import ddim_step, image_from_velocity
from moeframe.interfaces.denoiser import Denoised, Denoiser
from moeframe.interfaces.sampler import SamplerState
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, LogSnr


@dataclass(frozen=True)
class Prediction:
    """A denoiser's prediction in the form that samplers use."""

    image: Images
    denoised: Denoised


def predict_image(
    denoiser: Denoiser, z: Images, log_snr: float, trajectories: Trajectories, *, clip: bool
) -> Prediction:
    """The merged image prediction at one log-SNR, clipped after merging and never before."""
    levels = per_batch(log_snr, z)
    denoised = denoiser(z, levels, trajectories)
    image = image_from_velocity(denoised.velocity, z, levels)
    return Prediction(image.clamp(-1, 1) if clip else image, denoised)


def per_batch(log_snr: float, z: Images) -> LogSnr:
    """One log-SNR, expanded to a batch."""
    return torch.full((len(z),), log_snr, dtype=z.dtype, device=z.device)


def ddim_trajectory(
    denoiser: Denoiser, noise: Images, trajectories: Trajectories, grid: list[float], *, clip: bool
) -> Iterator[SamplerState]:
    """DDIM over the log-SNRs of `grid`, then the last image prediction (Song et al. 2021)."""
    z, calls = noise, 0
    for log_snr, next_log_snr in zip(grid, [*grid[1:], None], strict=True):
        prediction = predict_image(denoiser, z, log_snr, trajectories, clip=clip)
        yield SamplerState(z, prediction.image, log_snr, calls)
        calls += prediction.denoised.network_calls
        if next_log_snr is None:
            z = prediction.image
        else:
            z = ddim_step(z, prediction.image, per_batch(log_snr, z), per_batch(next_log_snr, z))
    yield SamplerState(z, z, math.inf, calls)
