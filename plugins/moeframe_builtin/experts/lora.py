"""Low-rank updates of a trunk's weights: LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe_builtin.experts.support.adapter import AdapterConfig


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
