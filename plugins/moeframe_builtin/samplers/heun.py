"""Heun's method on the probability-flow ODE: EDM's algorithm 1 without churn (https://arxiv.org/abs/2206.00364)."""

import math
from collections.abc import Iterator
from typing import Literal

from moeframe.diffusion import alpha, per_image
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.model.sampling import per_batch, predict_image
from moeframe.randomness import Trajectories
from moeframe.shapes import Images


class HeunSampler(Sampler):
    """Deterministic, second order, two network calls per step and expert (one in the last)."""

    class Config(Sampler.Config):
        type: Literal["heun"] = "heun"

        @property
        def evaluations(self) -> int:
            """Two a step, one in the last."""
            return 2 * self.steps - 1

    config: Config

    def trajectory(
        self, denoiser: Denoiser, noise: Images, trajectories: Trajectories, start: float | None = None
    ) -> Iterator[SamplerState]:
        """In y = z / α and σ = exp(-λ/2) the flow is dy/dσ = (y - x̂) / σ; average its slope over each step."""
        grid = self.grid(start)
        z, calls = noise, 0
        for i, log_snr in enumerate(grid):
            here = predict_image(denoiser, z, log_snr, trajectories, clip=self.config.clip)
            yield SamplerState(z, here.image, log_snr, calls)
            calls += here.denoised.network_calls
            if i + 1 == len(grid):
                z = here.image  # an Euler step to σ = 0
                continue
            y = z / per_image(alpha(per_batch(log_snr, z)), z)
            s, next_s = math.exp(-log_snr / 2), math.exp(-grid[i + 1] / 2)
            next_alpha = per_image(alpha(per_batch(grid[i + 1], z)), z)
            slope = (y - here.image) / s
            euler = y + (next_s - s) * slope
            there = predict_image(denoiser, next_alpha * euler, grid[i + 1], trajectories, clip=self.config.clip)
            calls += there.denoised.network_calls
            next_slope = (euler - there.image) / next_s
            z = next_alpha * (y + (next_s - s) * (slope + next_slope) / 2)
        yield SamplerState(z, z, math.inf, calls)
