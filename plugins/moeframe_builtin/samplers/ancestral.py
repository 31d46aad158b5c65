"""Ancestral sampling: the reverse chain with fresh noise at each step (DDPM; VDM, eq. 7).

Ho et al. 2020, https://arxiv.org/abs/2006.11239; Kingma et al. 2021, https://arxiv.org/abs/2107.00630.
"""

import math
from collections.abc import Iterator
from typing import Literal

from moeframe.diffusion import ancestral_step
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.model.sampling import per_batch, predict_image
from moeframe.randomness import Trajectories
from moeframe.shapes import Images


class AncestralSampler(Sampler):
    """Stochastic, with DDPM's smaller variance; one network call per step and expert."""

    class Config(Sampler.Config):
        type: Literal["ancestral"] = "ancestral"

    config: Config

    def trajectory(
        self, denoiser: Denoiser, noise: Images, trajectories: Trajectories, start: float | None = None
    ) -> Iterator[SamplerState]:
        """Draw each next state from the posterior given the predicted image: one noise draw for the merged step."""
        grid = self.grid(start)
        z, calls = noise, 0
        for i, log_snr in enumerate(grid):
            prediction = predict_image(denoiser, z, log_snr, trajectories, clip=self.config.clip)
            yield SamplerState(z, prediction.image, log_snr, calls)
            calls += prediction.denoised.network_calls
            if i + 1 == len(grid):
                z = prediction.image
            else:
                fresh = trajectories.normal(z.shape[1:], "ancestral", i).to(z)
                z = ancestral_step(z, prediction.image, fresh, per_batch(log_snr, z), per_batch(grid[i + 1], z))
        yield SamplerState(z, z, math.inf, calls)
