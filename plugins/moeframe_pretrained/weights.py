"""A network built for nothing but a checkpoint's tensors."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from moeframe.errors import CheckpointError
from moeframe_pretrained.checkpoint_files import listed, load_exactly

N = TypeVar("N", bound=nn.Module)

FIX = "it belongs to another network or was altered; download it again"


def with_weights(build: Callable[[], N], tensors: Mapping[str, Tensor], path: Path) -> N:
    """The network that `build` gives, with these tensors in place of its own; nothing is drawn at random.

    Raises CheckpointError listing tensors that are missing, unexpected, of another shape or not finite.
    """
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{path}: tensors with infinite or NaN values: {listed(bad)}; {FIX}")
    try:
        with torch.device("meta"):
            network = build()
        network.to_empty(device="cpu")
    except RuntimeError as cause:
        raise CheckpointError(f"{path}: describes a network too large for this machine; {FIX}") from cause
    load_exactly(network, tensors, path, FIX)
    return network
