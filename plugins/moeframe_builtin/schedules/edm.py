"""EDM's noise levels (Karras et al. 2022, eq. 5, https://arxiv.org/abs/2206.00364) in log-SNR: λ = -2 log σ."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, Times


class EdmSchedule(NoiseSchedule):
    """σ(t)^(1/ρ) is linear in time between sigma_min and sigma_max."""

    class Config(NoiseSchedule.Config):
        type: Literal["edm"] = "edm"
        sigma_min: float = Field(default=0.002, gt=0, description="lowest σ of y = x + σ ε")
        sigma_max: float = Field(default=80.0, gt=0, validate_default=True, description="highest σ")
        rho: float = Field(default=7.0, gt=0, description="larger: more of the time at low noise")

        @field_validator("sigma_max")
        @classmethod
        def _ordered(cls, value: float, info: Any) -> float:
            low = info.data.get("sigma_min", 0.0)
            if low >= value:
                raise ValueError(f"sigma_min {low:g} must be below sigma_max {value:g}")
            return value

    config: Config

    def log_snr(self, times: Times) -> LogSnr:
        """λ(t) = -2 ρ log( (1-t) σmin^(1/ρ) + t σmax^(1/ρ) )."""
        low, high = self.config.sigma_min ** (1 / self.config.rho), self.config.sigma_max ** (1 / self.config.rho)
        return -2 * self.config.rho * torch.log(low + (high - low) * times)
