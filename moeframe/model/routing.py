"""Routing over noise levels: mean weights, usage, and how often the gate finds the slice of an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moeframe.diffusion import add_noise, to_pixels
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Levels, PerItem, SliceIds


@dataclass(frozen=True)
class RoutingProfile:
    """Per noise level: mean weights (levels, K), accuracy (levels,) and accuracy by slice (levels, S)."""

    log_snr: list[float]
    mean_weights: Tensor
    accuracy: Tensor
    accuracy_by_slice: Tensor

    @property
    def usage(self) -> list[float]:
        """Mean weight of each expert over all noise levels."""
        return self.mean_weights.mean(0).tolist()


@torch.no_grad()
def profile_routing(
    model: MergedDenoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    slices: SliceIds,
    items: Trajectories,
    n_levels: int = 21,
) -> RoutingProfile:
    """Route the same images at evenly spaced times; an image is found if its slice's expert weighs most.

    Where n experts tie, as under a uniform gate, it counts 1/n.
    """
    device = model.device
    x = to_pixels(levels.to(device), image.levels)
    noise = items.normal(image.tensor_shape, "routing/noise").to(x)
    times = torch.linspace(1, 0, n_levels)
    grid = schedule.log_snr(times).tolist()
    n_slices = int(slices.max()) + 1
    weights, hits = [], []
    for value in grid:
        log_snr = torch.full((len(x),), value, device=device)
        routed = model.route(add_noise(x, noise, log_snr), log_snr, items).weights
        weights.append(routed.mean(0).cpu())
        hits.append(_found(routed.cpu(), slices))
    hit = torch.stack(hits)
    by_slice = [hit[:, slices == s].mean(1) for s in range(n_slices)]
    return RoutingProfile(grid, torch.stack(weights), hit.mean(1), torch.stack(by_slice, 1))


def _found(weights: GateWeights, slices: SliceIds) -> PerItem:
    heaviest = (weights == weights.amax(1, keepdim=True)).float()
    own = heaviest.gather(1, slices.clamp(max=weights.shape[1] - 1)[:, None])[:, 0]
    return own / heaviest.sum(1) * (slices < weights.shape[1])
