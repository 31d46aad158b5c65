"""Experts that wait in main memory and are on the device only while they are asked, for when its memory is short.

The last one asked stays there, so a gate that switches by noise level moves an expert once per band and not per step.
"""

from collections.abc import Sequence

import torch
from torch import nn

HOME = torch.device("cpu")


def bring(experts: Sequence[nn.Module], wanted: int, device: torch.device) -> None:
    """Have expert `wanted` on the device, and send home whichever other is there."""
    for k, expert in enumerate(experts):
        if k != wanted and device != HOME and _is_on(expert, device):
            expert.to(HOME)
    experts[wanted].to(device)


def _is_on(expert: nn.Module, device: torch.device) -> bool:
    tensors = [*expert.parameters(), *expert.buffers()]
    return any(tensor.device == device for tensor in tensors)
