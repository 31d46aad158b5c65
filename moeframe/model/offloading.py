"""Experts that wait in main memory and are on the device only while they are asked, for when its memory is short.

The last one asked stays there, so a gate that switches by noise level moves an expert once per band and not per step.
"""

from collections.abc import Iterable

import torch
from torch import nn

HOME = torch.device("cpu")


def move_exclusively(wanted: nn.Module, experts: Iterable[nn.Module], device: torch.device) -> None:
    """Have `wanted` on the device, and send home whichever other expert is there."""
    for expert in experts:
        if expert is not wanted and device != HOME and _is_on(expert, device):
            expert.to(HOME)
    wanted.to(device)


def _is_on(expert: nn.Module, device: torch.device) -> bool:
    tensors = [*expert.parameters(), *expert.buffers()]
    return any(tensor.device == device for tensor in tensors)
