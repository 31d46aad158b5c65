"""Trunk: layers that all experts share, run once per step; and the experts that continue from it."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.shapes import Images, ItemIds, LogSnr


@dataclass(frozen=True)
class TrunkFeatures:
    """What a trunk makes of a batch, the batch first in every tensor."""

    tensors: tuple[Tensor, ...]
    """Whatever the layers after the trunk need."""
    summary: Float[Tensor, "batch width"]
    """One vector per image, for a gate to read."""

    def at(self, items: ItemIds) -> "TrunkFeatures":
        """Those of some items of the batch."""
        return TrunkFeatures(tuple(tensor[items] for tensor in self.tensors), self.summary[items])


class Trunk(nn.Module, Component):
    """Early layers, run once per step for all experts, and later layers that experts adapt."""

    KIND: ClassVar[str] = "trunks"

    class Config(Component.Config):
        def for_seed(self, seed: int) -> "Trunk.Config":  # noqa: ARG002
            """The settings for one seed of a run; the same for all seeds by default."""
            return self

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__()
        self.config = config
        self.image = image

    @property
    def frozen(self) -> bool:
        """Whether training leaves the trunk as it is."""
        return False

    @property
    @abstractmethod
    def summary_width(self) -> int:
        """Width of the vector that a gate reads."""

    @property
    @abstractmethod
    def adaptable(self) -> Mapping[str, Tensor]:
        """The weights of the later layers by name, each (outputs, ...), of which an adapter may use others."""

    @property
    @abstractmethod
    def block_widths(self) -> Sequence[int]:
        """Channels after each of the later blocks, where an adapter may change the maps."""

    def standalone_config(self) -> Config:
        """Settings that build this trunk, but for its weights, without the files that it came from."""
        return self.config

    def provenance(self) -> Mapping[str, str]:
        """Where the weights come from: `source`, `licence`, hashes; empty for weights that this run trains."""
        return {}

    @abstractmethod
    def forward(self, z: Images, log_snr: LogSnr) -> TrunkFeatures:
        """The early layers, each item on its own, from (z, λ) alone."""

    @abstractmethod
    def finish(self, features: TrunkFeatures, adapter: "AdapterExpert", z: Images, log_snr: LogSnr) -> Images:
        """Velocity by the later layers as the adapter changes them."""


class AdapterExpert(Expert):
    """An expert that is a small change of a trunk's later layers; the mixture gives it the trunk's features."""

    def __init__(self, config: Expert.Config, *, image: ImageShape, trunk: Trunk):  # noqa: ARG002
        super().__init__(config, image=image)

    def changed(self, name: str, weight: Tensor) -> Tensor:  # noqa: ARG002
        """The weight to use in place of one of `Trunk.adaptable`."""
        return weight

    def after_block(self, block: int, maps: Tensor) -> Tensor:  # noqa: ARG002
        """The maps (batch, channels, height, width) to go on with after a block of `Trunk.block_widths`."""
        return maps

    def forward(self, z: Images, log_snr: LogSnr) -> Images:  # noqa: ARG002
        """Always raises ValueError: an adapter predicts nothing without its trunk."""
        raise ValueError(f"expert '{self.name()}' needs its trunk: ask the mixture, or MergedDenoiser.alone(k)")
