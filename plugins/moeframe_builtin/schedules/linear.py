"""Linear in log-SNR: every noise level gets the same share of time (VDM's learned schedule starts here)."""

from typing import Literal

import torch

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, Times
from moeframe_builtin.schedules.span import Span


class LinearSchedule(NoiseSchedule):
    """λ(t) falls linearly from log_snr_max to log_snr_min."""

    class Config(Span):
        type: Literal["linear"] = "linear"

    config: Config

    def log_snr(self, times: Times) -> LogSnr:
        """λ(t) = λmax + (λmin - λmax) t."""
        return self.config.log_snr_max + (self.config.log_snr_min - self.config.log_snr_max) * times

    def rate(self, times: Times) -> Times:
        """The same at every time."""
        return torch.full_like(times, self.config.log_snr_max - self.config.log_snr_min)
