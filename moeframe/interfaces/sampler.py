"""Sampler: from noise to an image, one state at a time."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field

from moeframe.interfaces.component import Component
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.randomness import Trajectories
from moeframe.shapes import Images


@dataclass(frozen=True)
class SamplerState:
    """One point of a trajectory."""

    z: Images
    """The state; the last one is the image."""
    image: Images
    """The predicted clean image behind this state."""
    log_snr: float
    """λ of the state; inf for the last."""
    network_calls: int
    """Expert evaluations so far, summed over the batch."""


def last_state(states: Iterator[SamplerState]) -> SamplerState:
    """The last state of a trajectory. No other state is kept: there would be one batch of images per step."""
    [last] = deque(states, maxlen=1)
    return last


class Sampler(Component):
    """Yields the states of a trajectory from noise to image, and counts the network calls."""

    KIND: ClassVar[str] = "samplers"

    class Config(Component.Config):
        steps: int = Field(default=50, ge=1, description="number of noise levels, evenly spaced in schedule time")
        clip: bool = Field(default=True, description="clip the merged image prediction to the range of pixels")

        @property
        def evaluations(self) -> int:
            """Merged evaluations of a trajectory, for predictions of cost."""
            return self.steps

    config: Config

    def __init__(self, config: Config, *, schedule: NoiseSchedule):
        self.config = config
        self.schedule = schedule

    def grid(self, start: float | None = None) -> list[float]:
        """The log-SNRs of the steps, noisiest first, from `start` (the schedule's noisiest if None) to the cleanest."""
        first = 1.0 if start is None else float(self.schedule.time_of(torch.tensor([start], dtype=torch.float64)))
        times = torch.linspace(first, 0.0, self.config.steps, dtype=torch.float64)
        return [float(value) for value in self.schedule.log_snr(times)]

    @abstractmethod
    def trajectory(
        self, denoiser: Denoiser, noise: Images, trajectories: Trajectories, start: float | None = None
    ) -> Iterator[SamplerState]:
        """Walk from `noise` (or from z at log-SNR `start`) to an image; the last state is the image, at λ = inf."""
