"""Input and output of a user's feature network, whatever it was loaded from."""

from typing import Any

import torch

from moeframe.errors import UnavailableError
from moeframe_builtin.features.space import Extracted, Rgb

TAKES = "RGB images of their own size, float32 in [0, 1], (n, 3, height, width), and returns (n, features)"


@torch.no_grad()
def rows_of(network: Any, images: Rgb, what: str, device: torch.device) -> Extracted:
    """Features only. Raises UnavailableError when the module does not take or return what it should."""
    try:
        features = network(images.to(device).float() / 255)
    except Exception as error:  # third-party code may raise anything
        last = str(error).strip().split("\n")[-1][:200]
        raise UnavailableError(f"{what} fails on images: {last}; it is given {TAKES}") from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(images):
        got = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UnavailableError(f"{what} returns {got} for {len(images)} images; it is given {TAKES}")
    return Extracted(features.float().cpu())
