"""Conversion between log-SNR and the step index of a network trained on a discrete chain."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moeframe.shapes import LogSnr, PerItem


class StepTable(nn.Module):
    """log-SNR of each training step, strictly decreasing, float64; looked up backwards.

    Raises ValueError where it is not.
    """

    log_snrs: Tensor

    def __init__(self, log_snrs: Float[Tensor, " steps"]):
        super().__init__()
        if len(log_snrs) < 2 or not bool(log_snrs.isfinite().all()) or not bool((log_snrs.diff() < 0).all()):
            raise ValueError("the log-SNR of a chain must be finite and fall at each of two or more steps")
        self.register_buffer("log_snrs", log_snrs.double(), persistent=False)

    @classmethod
    def of_alpha_bar(cls, alpha_bar: Float[Tensor, " steps"]) -> "StepTable":
        """Of ᾱ = α². Steps at its end with ᾱ = 0, pure noise, have no finite log-SNR and are left out."""
        kept = alpha_bar.double()
        kept = kept[: int((kept > 0).sum())]
        return cls(kept.log() - torch.log1p(-kept))

    @property
    def range(self) -> tuple[float, float]:
        """The (lowest, highest) log-SNR of the table."""
        return float(self.log_snrs[-1]), float(self.log_snrs[0])

    def step(self, log_snr: LogSnr, rounding: Literal["interpolated", "nearest"]) -> PerItem:
        """Step index at each λ, float64: linear in λ between two steps, or the one nearest in λ; clamped at the ends.

        float64, because at high noise neighbouring steps differ by 0.02 in λ, where float32 keeps about 1e-6.
        """
        wanted = log_snr.to(self.log_snrs)
        right = torch.searchsorted(-self.log_snrs, -wanted).clamp(1, len(self.log_snrs) - 1)
        above, below = self.log_snrs[right - 1], self.log_snrs[right]
        fraction = ((above - wanted) / (above - below)).clamp(0, 1)
        return right - 1 + (fraction if rounding == "interpolated" else fraction.round())
