"""Spherical interpolation of weights (Shoemake 1985, https://doi.org/10.1145/325334.325242)."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from moeframe.interfaces.expert import Expert
from moeframe_builtin.experts.support.weight_space import WeightSpaceExpert


class SlerpExpert(WeightSpaceExpert):
    """Spherical interpolation between the weights of two experts of one architecture, tensor by tensor."""

    class Config(WeightSpaceExpert.Config):
        type: Literal["slerp"] = "slerp"
        experts: tuple[SerializeAsAny[Expert.Config], ...] = Field(
            min_length=1, description="the two ends, of one architecture"
        )
        fraction: float = Field(default=0.5, ge=0, le=1, description="of the way from the first to the second")

        @field_validator("experts")
        @classmethod
        def _two(cls, experts: tuple[Expert.Config, ...]) -> tuple[Expert.Config, ...]:
            n = sum(expert.copies for expert in experts)
            if n > 2:
                raise ValueError(f"{n} experts; slerp goes from one to one other: name two, or use average")
            return experts

    config: Config

    def merge(self, tensors: Sequence[Tensor]) -> Tensor:
        """[sin((1-t) Ω) θ_0 + sin(t Ω) θ_1] / sin Ω, Ω the angle between them."""
        return slerp(tensors[0], tensors[1], self.config.fraction)


def slerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """Along the great circle through both directions; a straight line where they are (anti)parallel or zero.

    >>> import torch
    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3)
    tensor([0.8660, 0.5000])
    """
    lengths = float(first.norm() * second.norm())
    cosine = float((first * second).sum()) / lengths if lengths > 0 else 1.0
    if abs(cosine) > 1 - 1e-9:
        return (1 - fraction) * first + fraction * second
    angle = math.acos(cosine)
    return (math.sin((1 - fraction) * angle) * first + math.sin(fraction * angle) * second) / math.sin(angle)
