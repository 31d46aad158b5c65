"""MergedDenoiser: a gate and its experts as one denoiser, v̂ = Σ w_k v̂_k.

Parametrisations are affine in one another at fixed (z, λ), so merging velocities is merging noises or images if and
only if Σ w_k = 1. Sparse means dispatched: an expert sees only the items whose weight for it is not zero.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from moeframe.errors import RangeError
from moeframe.interfaces.denoiser import Contribution, Denoised
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate, Routing
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr


class MergedDenoiser(nn.Module):
    """K experts mixed by a gate. With one expert and no gate it is that expert: the single-expert baseline."""

    def __init__(self, experts: Sequence[Expert], gate: Gate | None = None):
        super().__init__()
        assert experts, "a mixture needs at least one expert"
        assert gate is not None or len(experts) == 1, "several experts need a gate"
        self.experts = nn.ModuleList(experts)
        self.gate = gate

    def forward(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Denoised:
        """Merged velocity of z. Raises RangeError where an expert that is asked is not valid."""
        routing = self.route(z, log_snr, trajectories)
        contributions = tuple(self._dispatch(z, log_snr, routing.weights))
        merged = contributions[0].velocity.to(z.dtype) if self.gate is None else _mix(z, routing, contributions)
        return Denoised(merged, routing, contributions)

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:
        """The gate's weights; all ones for a single expert without a gate."""
        if self.gate is None:
            ones = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
            return Routing(ones, ones)
        routing: Routing = self.gate.route(z, log_snr, trajectories)
        return routing

    def alone(self, expert: int) -> "MergedDenoiser":
        """One expert of the mixture as a denoiser of its own (shares its weights)."""
        return MergedDenoiser([self._expert(expert)])

    def _expert(self, k: int) -> Expert:
        expert = self.experts[k]
        assert isinstance(expert, Expert)
        return expert

    def _dispatch(self, z: Images, log_snr: LogSnr, weights: GateWeights) -> list[Contribution]:
        contributions = []
        for k in range(len(self.experts)):
            items = torch.nonzero(weights[:, k]).squeeze(1)
            if len(items) == 0:
                continue
            everything = len(items) == len(z)
            own_z, own_log_snr = (z, log_snr) if everything else (z[items], log_snr[items])
            expert = self._expert(k)
            _require_range(expert, k, own_log_snr)
            contributions.append(Contribution(k, items, expert(own_z, own_log_snr)))
        return contributions


_ROUNDING = 1e-4
"""A log-SNR in float32 may pass the ends of its own schedule by this much."""


def _mix(z: Images, routing: Routing, contributions: Sequence[Contribution]) -> Images:
    """Σ w_k v̂_k, each expert's share added at the items that it saw; in the type of z."""
    merged = torch.zeros_like(z)
    for part in contributions:
        weights = routing.weights[part.items, part.expert].view(-1, 1, 1, 1)
        weighted = (weights * part.velocity).to(z.dtype)
        merged = merged + weighted if len(part.items) == len(z) else merged.index_add(0, part.items, weighted)
    return merged


def _require_range(expert: Expert, k: int, log_snr: LogSnr) -> None:
    low, high = expert.log_snr_range
    if low == -math.inf and high == math.inf:
        return
    outside = (log_snr < low - _ROUNDING) | (log_snr > high + _ROUNDING)
    if outside.any():
        raise RangeError(
            f"expert {k} ({expert.name()}) is valid for log-SNR {low:g} .. {high:g} "
            f"but was asked at {float(log_snr[outside][0]):g}; narrow the schedule's log_snr_min / log_snr_max"
        )
