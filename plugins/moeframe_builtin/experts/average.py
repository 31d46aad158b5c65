"""Averaging of weights: model soups (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from moeframe_builtin.experts.support.weight_space import WeightSpaceExpert


class AverageExpert(WeightSpaceExpert):
    """Weighted mean of the weights of several experts of one architecture, as one expert."""

    class Config(WeightSpaceExpert.Config):
        type: Literal["average"] = "average"
        weights: tuple[float, ...] | None = Field(
            default=None, description="one per expert, their sum 1; equal ones if not given"
        )

        @field_validator("weights")
        @classmethod
        def _sum_to_one(cls, weights: tuple[float, ...] | None, info: Any) -> tuple[float, ...] | None:
            experts = info.data.get("experts")
            if weights is not None and experts is not None:
                n = sum(expert.copies for expert in experts)
                if len(weights) != n:
                    raise ValueError(f"{len(weights)} weights for {n} experts; give one per expert")
                if abs(sum(weights) - 1) > 1e-5:
                    raise ValueError(f"the weights sum to {sum(weights):g}, not to 1: {list(weights)}")
            return weights

    config: Config

    def merge(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ_k w_k θ_k."""
        weights = self.config.weights or (1 / len(tensors),) * len(tensors)
        return torch.stack([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)]).sum(0)
