"""Importance sampling of log-SNRs for the continuous bound: uniform, or proportional to the integrand's spread.

A term drawn with density q estimates the entire integral as integrand / q, so the bound is unbiased for any q > 0.
Points are spread over q by its inverse CDF, which keeps low-discrepancy times low-discrepancy.

Importance-sampled log-SNRs: Kingma et al. 2021, https://arxiv.org/abs/2107.00630.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.bound import Bound, scatter_of_terms
from moeframe.shapes import LogSnr, PerItem, Times

PILOT_IMAGES = 512
"""Training images behind a fitted density, at most."""

_BINS = 16
_PER_BIN = 8
_EVEN_SHARE = 0.25


@dataclass(frozen=True)
class LogSnrDensity:
    """A piecewise-constant density over log-SNR: the mass of each bin between `edges`, from the clean end down."""

    edges: tuple[float, ...]
    masses: tuple[float, ...]

    @classmethod
    def uniform(cls, schedule: NoiseSchedule) -> "LogSnrDensity":
        """The uniform density between the schedule's ends."""
        return cls((schedule.log_snr_max, schedule.log_snr_min), (1.0,))

    def log_snr(self, times: Times) -> LogSnr:
        """Inverse CDF: the λ that has the share `times` of the mass on its clean side; falls with time."""
        at, before = self._bins(times)
        start, width, mass = (values.to(times)[at] for values in (self._starts, self._widths, self._shares))
        return start - width * (((times - before) / mass).clamp(0, 1))

    def inverse(self, times: Times) -> PerItem:
        """1 / density at the λ of `times`, in units of log-SNR: the weight of a term drawn there."""
        at, _ = self._bins(times)
        return (self._widths / self._shares).to(times)[at]

    def _bins(self, times: Times) -> tuple[Tensor, Tensor]:
        """The bin of each time, and the mass on the clean side of that bin."""
        below = self._shares.cumsum(0) - self._shares
        at = torch.searchsorted(below, times.double().cpu(), right=True) - 1
        return at.to(times.device), below[at].to(times)

    @property
    def _starts(self) -> Tensor:
        return torch.tensor(self.edges[:-1], dtype=torch.float64)

    @property
    def _widths(self) -> Tensor:
        return -torch.tensor(self.edges, dtype=torch.float64).diff()

    @property
    def _shares(self) -> Tensor:
        return torch.tensor(self.masses, dtype=torch.float64)


def fit_density(pilot: Bound, schedule: NoiseSchedule) -> LogSnrDensity:
    """The density that makes the standard error small, from terms that a pilot drew with the uniform density.

    With low-discrepancy times what remains is the scatter among terms of one log-SNR, and the best density is
    proportional to its standard deviation. A quarter of the mass is even, so that no weight exceeds four times the
    uniform one, however wrong the pilot. The pilot must not be of the images that are measured.
    """
    n_bins = max(1, min(_BINS, len(pilot.log_snr) // _PER_BIN))
    edges = torch.linspace(schedule.log_snr_max, schedule.log_snr_min, n_bins + 1, dtype=torch.float64)
    at = torch.searchsorted(-edges[1:-1], -pilot.log_snr.double().cpu(), right=True)
    variances = scatter_of_terms(pilot)
    scatter = torch.stack([variances[at == k].sum() / max(1, int((at == k).sum())) for k in range(n_bins)]).sqrt()
    # Smoothed: a weight that jumps makes neighbours in log-SNR unequal, which the standard error would count.
    padded = torch.cat([scatter[:1], scatter, scatter[-1:]])
    scatter = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    if not float(scatter.sum()) > 1e-9 * float(pilot.diffusion.abs().max()):
        return LogSnrDensity.uniform(schedule)
    masses = (1 - _EVEN_SHARE) * scatter / scatter.sum() + _EVEN_SHARE / n_bins
    return LogSnrDensity(tuple(edges.tolist()), tuple(masses.tolist()))
