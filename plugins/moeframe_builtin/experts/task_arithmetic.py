"""Task arithmetic on weights (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089)."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from moeframe.interfaces.expert import Expert
from moeframe_builtin.experts.support.weight_space import WeightSpaceExpert


class TaskArithmeticExpert(WeightSpaceExpert):
    """A base expert plus the changes that others learned from it, θ_0 + s Σ_k (θ_k - θ_0), as one expert."""

    class Config(WeightSpaceExpert.Config):
        type: Literal["task_arithmetic"] = "task_arithmetic"
        experts: tuple[SerializeAsAny[Expert.Config], ...] = Field(
            min_length=1, description="first the base, then the experts that were trained on from it"
        )
        scale: float = Field(default=0.5, description="s, of the sum of the differences; 1 / (n - 1) is their mean")

    config: Config

    def merge(self, tensors: Sequence[Tensor]) -> Tensor:
        """θ_0 + s Σ_k (θ_k - θ_0)."""
        base = tensors[0]
        return base + self.config.scale * torch.stack([tensor - base for tensor in tensors[1:]]).sum(0)
