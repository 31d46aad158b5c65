"""Offloading: experts are kept in main memory and are on the device only while they are evaluated.

The last expert stays on the device, so a gate that switches by noise level moves experts once per band.
"""

from collections.abc import Iterable

import torch
from torch import nn

HOME = torch.device("cpu")


def move_exclusively(wanted: nn.Module, experts: Iterable[nn.Module], device: torch.device) -> None:
    """Move `wanted` to the device, and any other expert there back to main memory."""
    for expert in experts:
        if expert is not wanted and device != HOME and _is_on(expert, device):
            expert.to(HOME)
    wanted.to(device)


def _is_on(expert: nn.Module, device: torch.device) -> bool:
    tensors = [*expert.parameters(), *expert.buffers()]
    return any(tensor.device == device for tensor in tensors)
