"""DDPM's discrete beta-linear schedule (https://arxiv.org/abs/2006.11239), its log-SNRs interpolated."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, Times


class DdpmSchedule(NoiseSchedule):
    """log-SNR of ᾱ_i = Π (1 - β_j), β linear, at t = i / (T - 1); linear in between."""

    class Config(NoiseSchedule.Config):
        type: Literal["ddpm"] = "ddpm"
        beta_start: float = Field(default=1e-4, gt=0, lt=1)
        beta_end: float = Field(default=0.02, gt=0, lt=1, validate_default=True)
        train_steps: int = Field(default=1000, ge=2, description="T, the number of discrete steps")

        @field_validator("beta_end")
        @classmethod
        def _rising(cls, value: float, info: Any) -> float:
            start = info.data.get("beta_start", 0.0)
            if start > value:
                raise ValueError(f"beta_start {start:g} must not exceed beta_end {value:g}")
            return value

    config: Config

    def __init__(self, config: Config):
        super().__init__(config)
        betas = torch.linspace(config.beta_start, config.beta_end, config.train_steps, dtype=torch.float64)
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        # log(ᾱ / (1 - ᾱ)) without cancellation where ᾱ is near 1
        self._table = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def log_snr(self, times: Times) -> LogSnr:
        """Piecewise linear λ(t) through the discrete steps."""
        position = times * (self.config.train_steps - 1)
        # only the index is clamped: the gradient of a clamped time, and so the rate, would be zero at t = 0 and 1
        lower = position.detach().floor().clamp(0, self.config.train_steps - 2).long()
        table = self._table.to(times)
        return table[lower] + (position - lower) * (table[lower + 1] - table[lower])
