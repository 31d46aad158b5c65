"""The denoising objective in bits/dim: ½ ∫ w(λ) E‖ε - ε̂‖² dλ / (D ln 2), with w of mean one over the range.

With w = 1 (`vlb`) this is the diffusion term of the bound; the other weightings have the same unit.
Sources: VDM, https://arxiv.org/abs/2107.00630; DDPM, https://arxiv.org/abs/2006.11239; EDM,
https://arxiv.org/abs/2206.00364; Min-SNR, https://arxiv.org/abs/2303.09556.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.diffusion import bits_per_dim, diffusion_nats
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import LogSnr, PerItem, Scalar

_GRID = 4097


class NllLoss(Loss):
    """Denoising error of the merged prediction, weighted over noise levels, in bits/dim."""

    UNIT = "bits/dim"

    class Config(Loss.Config):
        type: Literal["nll"] = "nll"
        weighting: Literal["vlb", "simple", "edm", "min_snr"] = Field(
            default="vlb",
            description="vlb: the bound; simple: ε-MSE under the schedule (DDPM); "
            "edm: Karras et al. 2022; min_snr: Hang et al. 2023",
        )
        snr_cap: float = Field(default=5.0, gt=0, description="γ of min_snr")
        sigma_data: float = Field(default=0.5, gt=0, description="σ_data of edm")

    config: Config

    def __init__(self, config: Config, *, schedule: NoiseSchedule, slice_shares: tuple[float, ...]):
        super().__init__(config, schedule=schedule, slice_shares=slice_shares)
        self._mean_weight = self._mean_over_log_snr()

    def __call__(self, step: TrainingStep) -> Scalar:
        """Average over the batch of w(λ) · (-dλ/dt) · ½‖ε - ε̂‖² / (D ln 2)."""
        return self.per_item(step).mean()

    def per_item(self, step: TrainingStep) -> PerItem:
        """The same before averaging over the batch."""
        nats = diffusion_nats(step.velocity, step.denoised.velocity, step.log_snr)
        return self.weight(step.log_snr, step.rate) * step.rate * bits_per_dim(nats, step.x[0].numel())

    def weight(self, log_snr: LogSnr, rate: PerItem) -> PerItem:
        """w(λ), whose mean over the schedule's range of λ is one; `rate` is -dλ/dt there."""
        return self._raw_weight(log_snr, rate) / self._mean_weight

    def _raw_weight(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        # A loss averaged over t with factor c(λ) on the ε-error has w = c / (-dλ/dt).
        match self.config.weighting:
            case "vlb":
                return torch.ones_like(log_snr)
            case "simple":
                return 1 / rate
            case "min_snr":
                return (self.config.snr_cap * torch.exp(-log_snr)).clamp(max=1) / rate
            case "edm":
                # ln σ ~ N(-1.2, 1.2²) is λ ~ N(2.4, 2.4²); EDM's λ(σ) turns the x-error into (σ² + σ_d²)/σ_d²
                density = torch.exp(-0.5 * ((log_snr - 2.4) / 2.4) ** 2)
                return density * (torch.exp(-log_snr) + self.config.sigma_data**2)

    def _mean_over_log_snr(self) -> float:
        times = torch.linspace(0, 1, _GRID, dtype=torch.float64)
        log_snr, rate = self.schedule.log_snr(times), self.schedule.rate(times)
        integral = torch.trapezoid(self._raw_weight(log_snr, rate), -log_snr)
        mean = float(integral) / (self.schedule.log_snr_max - self.schedule.log_snr_min)
        assert math.isfinite(mean)
        assert mean > 0
        return mean
