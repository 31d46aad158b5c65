"""Denoiser: what samplers, bounds and losses see of a model."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from moeframe.interfaces.gate import Routing
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, ItemIds, LogSnr


@dataclass(frozen=True)
class Contribution:
    """The prediction of one expert for the items that were sent to it."""

    expert: int
    items: ItemIds
    velocity: Images


@dataclass(frozen=True)
class Denoised:
    """A merged prediction and how it came about."""

    velocity: Images
    routing: Routing
    contributions: tuple[Contribution, ...]

    @property
    def network_calls(self) -> int:
        """Expert evaluations spent, summed over the items of the batch."""
        return sum(len(contribution.items) for contribution in self.contributions)


@runtime_checkable
class Denoiser(Protocol):
    """A function of noisy images and their log-SNR; `trajectories` only addresses random draws."""

    def __call__(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Denoised:
        """The prediction for each item."""
        ...
