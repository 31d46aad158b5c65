"""Inception v3 of the FID, as torch-fidelity ports it from TensorFlow; the user supplies the file of weights."""

import io
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
    why_missing,
    why_no_weights,
)

PACKAGES = ("torch_fidelity",)
NETWORK = "torch-fidelity's Inception v3"
WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}"


def _path(settings: SpaceSettings) -> Path:
    """The user's file, or the place to which torch-fidelity would download."""
    return settings.weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME


class Inception(FileSpace):
    """The 2048 pooled features of the FID, and the logits of the Inception score (without bias, as published)."""

    KEY: ClassVar[str] = "inception"
    USES: ClassVar[frozenset[str]] = frozenset({"weights", "verify"})

    @classmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:
        """The package, or the file of weights."""
        get = f"get {WEIGHTS_URL} and put it there, or give its path with weights: PATH"
        return why_missing(PACKAGES) or why_no_weights(_path(settings), get)

    @property
    def name(self) -> str:
        """Inception, where the weights are the published ones."""
        return "Inception" if self._published else "unpublished Inception"

    @property
    def what(self) -> str:
        """Layer and network; says if the weights are not the published ones."""
        layer = "Inception v3 (ImageNet, TensorFlow's 2015-12-05, torch-fidelity's port), 2048 pooled features"
        return (
            layer if self._published else f"{layer}; NOT the published weights, so published values are not comparable"
        )

    @property
    def _published(self) -> bool:
        return self.weights_sha256.startswith(WEIGHTS_NAME[-12:-4])

    @property
    def preprocessing(self) -> str:
        """torch-fidelity's resize is inside its network."""
        return f"{TO_RGB}; TensorFlow 1's bilinear resize to 299 px inside torch-fidelity's network"

    @torch.no_grad()
    def extract(self, images: Rgb) -> Extracted:
        """Features and logits."""
        features, logits = self._network(images.to(self.device))
        return Extracted(features.cpu(), logits.cpu())

    @cached_property
    def _file(self) -> WeightsFile:
        file = WeightsFile.read(_path(self.settings))
        if self.settings.verify:
            file.expect_published(WEIGHTS_NAME)
        return file

    @cached_property
    def _network(self) -> Any:
        # Any: torch-fidelity has no types
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self._file.tensors(NETWORK)  # torch-fidelity unpickles whatever a file holds; this one holds tensors only
        try:
            with torch.random.fork_rng(devices=[]):  # initial values are drawn, then overwritten
                network = FeatureExtractorInceptionV3(
                    "inception-v3-compat",
                    ["2048", "logits_unbiased"],
                    feature_extractor_weights_path=io.BytesIO(self._file.content),
                )
        except RuntimeError as error:
            raise self._file.not_of(NETWORK, error) from error
        return network.to(self.device)
