"""DINOv2 ViT-L/14 from a copy of its repository and its weights.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193; as a space to compare generators in, Stein et al. 2023,
https://arxiv.org/abs/2306.04675.
"""

import contextlib
import io
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from moeframe_builtin.features.space import (
    TO_RGB,
    Extracted,
    FileSpace,
    Rgb,
    SpaceSettings,
    WeightsFile,
    shown,
    why_missing,
    why_no_weights,
)

PACKAGES = ("torch_fidelity",)
MODEL = "dinov2_vitl14"
REPOSITORY = "https://github.com/facebookresearch/dinov2"
WEIGHTS_NAME = f"{MODEL}_pretrain.pth"
SIZE = 224
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def _code() -> Path:
    """Where torch.hub keeps the network's repository."""
    return Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"


def _path(settings: SpaceSettings) -> Path:
    return settings.weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME


class DinoV2(FileSpace):
    """The class token of DINOv2 ViT-L/14, trained without labels."""

    KEY: ClassVar[str] = "dinov2"
    USES: ClassVar[frozenset[str]] = frozenset({"weights"})

    @classmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:
        """The package, the code of the network, or its weights."""
        get = f"get {WEIGHTS_NAME} as {REPOSITORY} says and put it there, or give its path with weights: PATH"
        return why_missing(PACKAGES) or _why_no_code() or why_no_weights(_path(settings), get)

    @property
    def name(self) -> str:
        """With the first digits of the weights' hash: the published file's is not known here."""
        return f"DINOv2 ViT-L/14 ({self.weights_sha256[:8]})"

    @property
    def what(self) -> str:
        """Layer and network."""
        return "DINOv2 ViT-L/14 (LVD-142M, no labels), class token, 1024 features; weights not verified, see their hash"

    @property
    def preprocessing(self) -> str:
        """As torch-fidelity prepares images for DINOv2."""
        return f"{TO_RGB}; TensorFlow 1's bilinear resize to {SIZE} px, ImageNet mean and sd, as torch-fidelity does"

    @torch.no_grad()
    def extract(self, images: Rgb) -> Extracted:
        """Features only."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        resized = interpolate_bilinear_2d_like_tensorflow1x(
            images.to(self.device).float(), size=(SIZE, SIZE), align_corners=False
        )
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return Extracted(self._network((resized / 255 - mean) / std).float().cpu())

    @cached_property
    def _file(self) -> WeightsFile:
        return WeightsFile.read(_path(self.settings))

    @cached_property
    def _network(self) -> Any:
        # Any: torch.hub gives whatever the repository makes
        state = self._file.tensors(MODEL)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # that xFormers is not installed
            network = torch.hub.load(  # type: ignore[no-untyped-call]
                str(_code()), MODEL, source="local", pretrained=False
            )
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise self._file.not_of(MODEL, error) from error
        return network.to(self.device).eval()


def _why_no_code() -> str | None:
    if (_code() / "hubconf.py").is_file():
        return None
    return f"no code of DINOv2 at {shown(_code())}; clone {REPOSITORY} there; moeframe downloads nothing"
