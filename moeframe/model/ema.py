"""Exponential moving average (EMA) of a model's weights, which is evaluated by default.

torch's AveragedModel walks the module tree at every update, which costs more than the average itself for small models.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class MovingAverage(Generic[M]):
    """A copy of a model that holds the average of its weights."""

    def __init__(self, model: M, decay: float):
        self.model: M = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        # frozen weights stay equal, and may be on another device than their copy
        pairs = [(a, c) for a, c in zip(self.model.parameters(), model.parameters(), strict=True) if c.requires_grad]
        self._averaged: list[Tensor] = [averaged for averaged, _ in pairs]
        self._current: list[Tensor] = [current for _, current in pairs]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Update the average with the weights of update number n, counted from 0.

        The decay rises to its value, min(decay, (1 + n) / (10 + n)), so that early weights are forgotten in short runs;
        the first update copies.
        """
        decay = min(self.decay, (1 + n) / (10 + n)) if n > 0 else 0.0
        if self._averaged:
            torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for averaged, current in self._buffers:
            averaged.copy_(current)
