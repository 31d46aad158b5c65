"""NoiseSchedule: log-SNR as a function of time."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from moeframe.interfaces.component import Component
from moeframe.shapes import LogSnr, Times


class NoiseSchedule(Component):
    """Strictly decreasing log-SNR λ(t) on t in [0, 1]: t = 0 is clean, t = 1 is noise."""

    KIND: ClassVar[str] = "schedules"

    class Config(Component.Config):
        pass

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def log_snr(self, times: Times) -> LogSnr:
        """λ(t) of each time."""

    def rate(self, times: Times) -> Times:
        """-dλ/dt > 0: the importance weight that makes an average over t an integral over λ."""
        with torch.enable_grad():
            t = times.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(t).sum(), t)
        return -slope

    @property
    def log_snr_min(self) -> float:
        """λ(1), the noisiest."""
        return float(self.log_snr(torch.ones(1, dtype=torch.float64)))

    @property
    def log_snr_max(self) -> float:
        """λ(0), the cleanest."""
        return float(self.log_snr(torch.zeros(1, dtype=torch.float64)))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The time at which λ(t) equals `log_snr`, by bisection in float64; values outside the range give 0 or 1."""
        target = log_snr.double()
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(52):
            middle = (low + high) / 2
            too_clean = self.log_snr(middle) > target
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return ((low + high) / 2).to(log_snr.dtype)
