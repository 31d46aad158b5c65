"""DDIM: the deterministic first-order sampler (Song et al. 2021, https://arxiv.org/abs/2010.02502)."""

from collections.abc import Iterator
from typing import Literal

from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.model.sampling import ddim_trajectory
from moeframe.randomness import Trajectories
from moeframe.shapes import Images


class DdimSampler(Sampler):
    """Deterministic, first order, one network call per step and expert."""

    class Config(Sampler.Config):
        type: Literal["ddim"] = "ddim"

    config: Config

    def trajectory(
        self, denoiser: Denoiser, noise: Images, trajectories: Trajectories, start: float | None = None
    ) -> Iterator[SamplerState]:
        """Predict the image, then move it and its noise to the next level; end with the last prediction."""
        return ddim_trajectory(denoiser, noise, trajectories, self.grid(start), clip=self.config.clip)
