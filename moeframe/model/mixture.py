"""MergedDenoiser: a gate and its experts as one denoiser, v̂ = Σ w_k v̂_k.

Parametrisations are affine in one another at fixed (z, λ), so merging velocities is merging noises or images if and
only if Σ w_k = 1. Sparse means dispatched: an expert sees only the items whose weight for it is not zero. A trunk that
experts share is run once per step, however many of them follow.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from moeframe.diffusion import alpha, image_from_velocity, per_image, velocity_from_image
from moeframe.errors import RangeError
from moeframe.interfaces.denoiser import Contribution, Denoised
from moeframe.interfaces.expert import Expert, Jumps
from moeframe.interfaces.gate import Gate, Routing
from moeframe.interfaces.trunk import AdapterExpert, Trunk, TrunkFeatures
from moeframe.model.offloading import move_exclusively
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr


class MergedDenoiser(nn.Module):
    """K experts mixed by a gate. One expert without a gate is the single-expert baseline."""

    def __init__(self, experts: Sequence[Expert], gate: Gate | None = None, trunk: Trunk | None = None):
        super().__init__()
        needed = gate is not None and gate.reads_trunk
        assert trunk is not None or not (needed or any(isinstance(expert, AdapterExpert) for expert in experts))
        assert experts, "a mixture needs at least one expert"
        assert gate is not None or len(experts) == 1, "several experts need a gate"
        self.experts = nn.ModuleList(experts)
        self.gate = gate
        self.trunk = trunk
        self._offload = False
        self._device: torch.device | None = None
        self._sharing: tuple[nn.Module, ...] = tuple(experts)
        """Experts that share the device: those of this mixture, and of the mixture that encloses it."""

    def place(self, device: torch.device, *, offload: bool = False) -> "MergedDenoiser":
        """Move to the device; with `offload` each expert only while it is evaluated (see moeframe.model.offloading)."""
        self._offload, self._device = offload, device
        for part in (self.gate, self.trunk, *([] if offload else [self.experts])):
            if part is not None:
                part.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the noisy images."""
        first = next(self.parameters(), None)
        return self._device or (torch.device("cpu") if first is None else first.device)

    def forward(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Denoised:
        """Merged velocity of z. Raises RangeError where an evaluated expert is not valid."""
        features = None if self.trunk is None else self.trunk(z, log_snr)
        routing = self._route(features, z, log_snr, trajectories)
        contributions = tuple(self._dispatch(features, z, log_snr, routing.weights))
        merged = contributions[0].velocity.to(z.dtype) if self.gate is None else _mix(z, routing, contributions)
        return Denoised(merged, routing, contributions)

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:
        """The gate's weights; all ones for a single expert without a gate."""
        reads_trunk = self.gate is not None and self.gate.reads_trunk
        features = self.trunk(z, log_snr) if self.trunk is not None and reads_trunk else None
        return self._route(features, z, log_snr, trajectories)

    def _route(
        self, features: TrunkFeatures | None, z: Images, log_snr: LogSnr, trajectories: Trajectories | None
    ) -> Routing:
        if self.gate is None:
            ones = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
            return Routing(ones, ones)
        routing: Routing = self.gate.route_from(features, z, log_snr, trajectories)
        return self._without_excluded(routing, log_snr)

    def routed_only(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Denoised:
        """The gate's weights without evaluating an expert; the velocity is NaN, so that nothing uses it by mistake."""
        return Denoised(torch.full_like(z, math.nan), self.route(z, log_snr, trajectories), ())

    def alone(self, expert: int) -> "MergedDenoiser":
        """One expert of the mixture, with its trunk if there is one, as a separate denoiser (shares the weights)."""
        one = self._expert(expert)
        model = MergedDenoiser([one], trunk=self.trunk if isinstance(one, AdapterExpert) else None)
        model._offload, model._device, model._sharing = self._offload, self._device, self._sharing
        return model

    def range_of(self, expert: int) -> tuple[float, float]:
        """The log-SNRs at which an expert can be evaluated: its range, or all if its config says `clamp`."""
        one = self._expert(expert)
        return (-math.inf, math.inf) if one.config.outside == "clamp" else one.log_snr_range

    @property
    def jumps(self) -> Jumps:
        """Where it jumps: where the gate or an expert does, and where the range of an excluded expert ends."""
        anywhere: list[str] = []
        at: list[float] = []
        if self.gate is not None:
            anywhere += [] if self.gate.continuous else [f"gate {self.gate.name()}"]
            at += self.gate.switches
        for k in range(len(self.experts)):
            inside = self._expert(k).jumps
            anywhere += [f"{inside.anywhere} inside expert {k}"] if inside.anywhere else []
            at += inside.at
            if self._expert(k).config.outside == "exclude":
                low, high = self._expert(k).log_snr_range
                at += [end for end in (low - ROUNDING, high + ROUNDING) if math.isfinite(end)]
        return Jumps(" and ".join(anywhere), tuple(sorted(set(at))))

    def _expert(self, k: int) -> Expert:
        expert = self.experts[k]
        assert isinstance(expert, Expert)
        return expert

    def _without_excluded(self, routing: Routing, log_snr: LogSnr) -> Routing:
        """Set the weight of an excluded expert outside its range to zero; the others share it in proportion."""
        excluded = torch.zeros_like(routing.weights, dtype=torch.bool)
        for k in range(len(self.experts)):
            if self._expert(k).config.outside == "exclude":
                excluded[:, k] = _outside(self._expert(k), log_snr)
        if not excluded.any():
            return routing
        kept = routing.weights.masked_fill(excluded, 0.0)
        total = kept.sum(1, keepdim=True)
        nobody = total.squeeze(1) == 0
        if nobody.any():
            raise RangeError(
                f"at log-SNR {float(log_snr[nobody][0]):g} every expert that the gate chose is outside its range and "
                "excluded; add an expert that is valid there, or narrow the schedule's log_snr_min / log_snr_max"
            )
        return Routing(kept / total * routing.weights.sum(1, keepdim=True), routing.probabilities)

    def _dispatch(
        self, features: TrunkFeatures | None, z: Images, log_snr: LogSnr, weights: GateWeights
    ) -> list[Contribution]:
        contributions = []
        for k in range(len(self.experts)):
            items = torch.nonzero(weights[:, k]).squeeze(1)
            if len(items) == 0:
                continue
            everything = len(items) == len(z)
            own_z, own_log_snr = (z, log_snr) if everything else (z[items], log_snr[items])
            expert = self._expert(k)
            if self._offload:
                move_exclusively(expert, self._sharing, z.device)
            if isinstance(expert, AdapterExpert):
                assert self.trunk is not None
                assert features is not None
                own = features if everything else features.at(items)
                velocity = self.trunk.finish(own, expert, own_z, own_log_snr)
            else:
                velocity = _ask(expert, k, own_z, own_log_snr)
            contributions.append(Contribution(k, items, velocity))
        return contributions


ROUNDING = 1e-4
"""Float32 rounding may move a log-SNR beyond the ends of its schedule by this much."""


def _mix(z: Images, routing: Routing, contributions: Sequence[Contribution]) -> Images:
    """Σ w_k v̂_k, each expert's share added at the items that it received; in the dtype of z."""
    merged = torch.zeros_like(z)
    for part in contributions:
        weights = routing.weights[part.items, part.expert].view(-1, 1, 1, 1)
        weighted = (weights * part.velocity).to(z.dtype)
        merged = merged + weighted if len(part.items) == len(z) else merged.index_add(0, part.items, weighted)
    return merged


def _outside(expert: Expert, log_snr: LogSnr) -> Bool[Tensor, " batch"]:
    low, high = expert.log_snr_range
    return (log_snr < low - ROUNDING) | (log_snr > high + ROUNDING)


def _ask(expert: Expert, k: int, z: Images, log_snr: LogSnr) -> Images:
    """The expert's velocity; outside its range, as its config says."""
    low, high = expert.log_snr_range
    if low == -math.inf and high == math.inf:
        return _velocity(expert, z, log_snr)
    outside = _outside(expert, log_snr)
    if not outside.any():
        return _velocity(expert, z, log_snr)
    if expert.config.outside != "clamp":
        raise RangeError(
            f"expert {k} ({expert.name()}) is valid for log-SNR {low:g} .. {high:g} "
            f"but was evaluated at {float(log_snr[outside][0]):g}; narrow the schedule's log_snr_min / log_snr_max, "
            "or set the expert's 'outside' to clamp or exclude"
        )
    nearest = log_snr.clamp(low, high)
    # the same noisy image, z / α, on the scale of the nearest log-SNR; inside the range nothing changes
    rescaled = z * per_image(alpha(nearest) / alpha(log_snr), z)
    velocity = _velocity(expert, rescaled, nearest)
    image = image_from_velocity(velocity, rescaled, nearest)
    return torch.where(outside.view(-1, 1, 1, 1), velocity_from_image(image, z, log_snr), velocity)


def _velocity(expert: Expert, z: Images, log_snr: LogSnr) -> Images:
    velocity: Images = expert(z, log_snr)
    return velocity
