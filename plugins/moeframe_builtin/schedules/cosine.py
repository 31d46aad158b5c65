"""Cosine schedule in log-SNR with a shift for the image size.

Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672; Hoogeboom et al. 2023, https://arxiv.org/abs/2301.11093.
"""

import math
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, Times
from moeframe_builtin.schedules.span import Span


class CosineSchedule(NoiseSchedule):
    """λ(u) = -2 log tan(π u / 2) + shift, with u running over the part where λ is in the stated range."""

    class Config(Span):
        type: Literal["cosine"] = "cosine"
        shift: float = Field(default=0.0, description="2 log(64 / d) for images of d pixels a side (simple diffusion)")

    config: Config

    def log_snr(self, times: Times) -> LogSnr:
        """λ(t), exact at both ends of the range."""
        return (-2 * torch.log(torch.tan(self._angle(times))) + self.config.shift).to(times.dtype)

    def rate(self, times: Times) -> Times:
        """4 φ' / sin 2φ of the angle φ(t) = π u / 2."""
        start, end = self._ends()
        return (4 * (end - start) / torch.sin(2 * self._angle(times))).to(times.dtype)

    def _angle(self, times: Times) -> Times:
        start, end = self._ends()
        # float64: in float32 an angle this near to π/2 loses λ, and can pass π/2
        return start + (end - start) * times.double()

    def _ends(self) -> tuple[float, float]:
        def angle(log_snr: float) -> float:
            return math.atan(math.exp((self.config.shift - log_snr) / 2))

        return angle(self.config.log_snr_max), angle(self.config.log_snr_min)
