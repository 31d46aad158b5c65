"""Cosine schedule in log-SNR with a shift for the image size (Nichol & Dhariwal 2021; Hoogeboom et al. 2023)."""

import math
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, Times
from moeframe_builtin.schedules.span import Span


class CosineSchedule(NoiseSchedule):
    """λ(u) = -2 log tan(π u / 2) + shift, with u running over the part where λ lies in the stated range."""

    class Config(Span):
        type: Literal["cosine"] = "cosine"
        shift: float = Field(default=0.0, description="2 log(64 / d) for images of d pixels a side (simple diffusion)")

    config: Config

    def log_snr(self, times: Times) -> LogSnr:
        """λ(t), exact at both ends of the range."""
        start, end = self._angle(self.config.log_snr_max), self._angle(self.config.log_snr_min)
        # float64: in float32 an angle this near to π/2 loses λ, and can pass π/2
        angle = start + (end - start) * times.double()
        return (-2 * torch.log(torch.tan(angle)) + self.config.shift).to(times.dtype)

    def _angle(self, log_snr: float) -> float:
        return math.atan(math.exp((self.config.shift - log_snr) / 2))
