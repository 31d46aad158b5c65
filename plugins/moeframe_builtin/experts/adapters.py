"""Experts that are small changes of a trunk: low-rank updates of its weights, or bottlenecks after its blocks.

At the start both change nothing, so a mixture upcycled from one pretrained expert begins as that expert.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.trunk import AdapterExpert, Trunk


class AdapterConfig(Expert.Config):
    """What both have in common."""

    def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
        """There is nothing to adapt."""
        if not facts.has_trunk:
            yield (
                "type",
                f"'{self.type}' changes a trunk, and there is none; add a section 'trunk', for example  "
                "trunk: {type: unet}",
            )


class LoraExpert(AdapterExpert):
    """Low-rank updates W + (scale / rank) B A of the trunk's later weights (Hu et al. 2022)."""

    class Config(AdapterConfig):
        type: Literal["lora"] = "lora"
        rank: int = Field(default=4, ge=1, description="of each update; at most the smaller side of the weight")
        scale: float = Field(default=4.0, gt=0, description="α of the paper; the update is multiplied by scale / rank")

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, trunk: Trunk):
        super().__init__(config, image=image, trunk=trunk)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in trunk.adaptable.items():
            outputs, inputs = weight.shape[0], weight[0].numel()
            rank = min(config.rank, outputs, inputs)
            key = name.replace(".", "/")  # a dot would be read as a path of modules
            self.down[key] = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
            self.up[key] = nn.Parameter(torch.zeros(outputs, rank))

    def changed(self, name: str, weight: Tensor) -> Tensor:
        """W + (scale / rank) B A."""
        key = name.replace(".", "/")
        down, up = self.down[key], self.up[key]
        update: Tensor = (self.config.scale / len(down)) * (up @ down).view_as(weight)
        return weight + update


class BottleneckExpert(AdapterExpert):
    """A narrow two-layer network around a skip after each of the trunk's later blocks (Houlsby et al. 2019)."""

    class Config(AdapterConfig):
        type: Literal["bottleneck"] = "bottleneck"
        width: int = Field(default=8, ge=1, description="channels between the two layers")

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, trunk: Trunk):
        super().__init__(config, image=image, trunk=trunk)
        self.blocks = nn.ModuleList(_bottleneck(channels, config.width) for channels in trunk.block_widths)

    def after_block(self, block: int, maps: Tensor) -> Tensor:
        """maps + up(silu(down(maps)))."""
        changed: Tensor = maps + self.blocks[block](maps)
        return changed


def _bottleneck(channels: int, width: int) -> nn.Sequential:
    last = nn.Conv2d(width, channels, 1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), last)
