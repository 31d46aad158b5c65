"""Experts from a folder that `moeframe export --format safetensors` wrote."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from moeframe.interfaces.component import ImageShape
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe_pretrained.moeframe_runs.expert_folder import SETTINGS, WEIGHTS, build_expert, fitted, read_expert
from moeframe_pretrained.moeframe_runs.mixture_expert import MixtureExpert, require_deterministic_gate
from moeframe_pretrained.moeframe_runs.mixture_folder import is_mixture, read_mixture
from moeframe_pretrained.pretrained import sha256_of


class CheckpointExpert(MixtureExpert):
    """One expert, or a mixture as one, from a folder that `moeframe export --format safetensors` wrote."""

    class Config(MixtureExpert.Config):
        type: Literal["checkpoint"] = "checkpoint"
        path: Path = Field(description="a folder with config.json (or mixture.json) and model.safetensors")
        trust_code: bool = Field(
            default=False, description="run the program that a folder brings, such as a gate's TorchScript classifier"
        )

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        if is_mixture(config.path):
            self.inner = read_mixture(config.path, image, trust_code=config.trust_code).model
            require_deterministic_gate(self.inner, config.path)
        else:
            settings, tensors = read_expert(config.path, image)
            expert = build_expert(settings, Registry.installed(), image, str(config.path / SETTINGS))
            self.inner = MergedDenoiser([fitted(expert, tensors, config.path / WEIGHTS)])
        self.weights_sha256 = sha256_of(sorted(config.path.rglob("*.safetensors")))
