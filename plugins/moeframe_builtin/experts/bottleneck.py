"""Bottlenecks after a trunk's blocks: adapters (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751)."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe_builtin.experts.support.adapter import AdapterConfig


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
