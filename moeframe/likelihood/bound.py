"""The parts of a bound per image, and the standard error of their mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moeframe.shapes import LogSnr, PerItem


@dataclass(frozen=True)
class Bound:
    """The parts of the bound per image, bits/dim, and the log-SNR at which each diffusion term was drawn."""

    reconstruction: PerItem
    prior: PerItem
    diffusion: PerItem
    log_snr: LogSnr

    @property
    def total(self) -> PerItem:
        """Upper bound on -log2 p(x) / D of each image."""
        return self.reconstruction + self.prior + self.diffusion

    @classmethod
    def concatenate(cls, parts: list["Bound"]) -> "Bound":
        """The bounds of several batches as one."""
        return cls(
            torch.cat([part.reconstruction for part in parts]),
            torch.cat([part.prior for part in parts]),
            torch.cat([part.diffusion for part in parts]),
            torch.cat([part.log_snr for part in parts]),
        )


_NEIGHBOURS = 8


def standard_error(repeats: Sequence[Bound]) -> float:
    """Standard error over images of the mean total, from one or more draws of each image at low-discrepancy times.

    The times of a draw share out the range evenly, so what the integrand owes to its time is no error of the mean. Each
    total therefore counts as its distance from those of its neighbours in log-SNR; NaN for a single image.
    """
    residuals = torch.stack([_beside_neighbours(bound) for bound in repeats]).mean(0)
    return math.sqrt(float(residuals.square().mean()) / len(residuals))


def _beside_neighbours(bound: Bound) -> PerItem:
    order = bound.log_snr.argsort()
    total = bound.total.double()
    residuals = torch.empty_like(total)
    for block in order.tensor_split(max(1, len(order) // _NEIGHBOURS)):
        correction = math.sqrt(len(block) / (len(block) - 1)) if len(block) > 1 else math.nan
        residuals[block] = correction * (total[block] - total[block].mean())
    return residuals
