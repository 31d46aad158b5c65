"""Networks of Variational Diffusion Models (https://arxiv.org/abs/2107.00630) as experts, from flax checkpoints."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from moeframe.diffusion import velocity_from_noise
from moeframe.errors import CheckpointError
from moeframe.interfaces.component import ImageShape
from moeframe.shapes import Images, LogSnr
from moeframe_pretrained.pretrained import PretrainedExpert, sha256_of
from moeframe_pretrained.vdm.flax_msgpack import read_flax
from moeframe_pretrained.vdm.network import ScoreUNet, VdmLayout, schedule_ends
from moeframe_pretrained.weights import with_weights

SCORE, SCHEDULE = "score_model/", "gamma/"


class VdmExpert(PretrainedExpert):
    """A VDM score network from a flax checkpoint of google-research/vdm; its pixel grid is our own."""

    class Config(PretrainedExpert.Config):
        type: Literal["vdm"] = "vdm"
        gamma_min: float = Field(default=-13.3, description="gamma_min of the training config; not in the checkpoint")
        gamma_max: float = Field(default=5.0, description="gamma_max of the training config; not in the checkpoint")
        dropout: float = Field(default=0.1, ge=0, lt=1, description="in further training; not in the checkpoint")

        @field_validator("gamma_max")
        @classmethod
        def _above_gamma_min(cls, value: float, info: Any) -> float:
            low = info.data.get("gamma_min", -math.inf)
            if value <= low:
                raise ValueError(f"gamma_max {value:g} must be above gamma_min {low:g}")
            return value

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        tree = read_flax(config.path, "ema_params")
        tensors = dict(_as_in_torch(name.removeprefix(SCORE), t) for name, t in tree.items() if name.startswith(SCORE))
        layout = VdmLayout.of(tensors, config.path)
        if layout.channels != image.channels:
            raise CheckpointError(
                f"{config.path} is a network for images of {layout.channels} channels, not of the data's "
                f"{image.channels}"
            )
        self.network = with_weights(lambda: ScoreUNet(layout, config.dropout), tensors, config.path)
        self._gamma_ends = self._read_schedule(
            {name.removeprefix(SCHEDULE): tensor for name, tensor in tree.items() if name.startswith(SCHEDULE)}
        )
        self.weights_sha256 = sha256_of([config.path])

    def _read_schedule(self, gamma: dict[str, Tensor]) -> tuple[float, float]:
        try:
            low, high = schedule_ends(gamma, (self.config.gamma_min, self.config.gamma_max))
        except (KeyError, RuntimeError, ValueError) as cause:
            raise CheckpointError(
                f"{self.config.path} has a noise schedule that moeframe does not know, of {', '.join(sorted(gamma))}"
            ) from cause
        if not -math.inf < low < high < math.inf:
            raise CheckpointError(f"{self.config.path} has a noise schedule from γ = {low:g} to {high:g}: altered")
        return low, high

    def family_licence(self) -> str:
        """That of google-research/vdm."""
        return "Apache-2.0"

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """From -γ(1) to -γ(0), the checkpoint's learnt ends where it learnt them."""
        low, high = self._gamma_ends
        return (-high, -low)

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity from the predicted noise; γ = -λ."""
        span = self.config.gamma_max - self.config.gamma_min
        noise = self.network(z, (-log_snr - self.config.gamma_min) / span)
        return velocity_from_noise(noise, z, log_snr)


def _as_in_torch(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A tensor of flax, channels last, under its name and with its axes in our network."""
    *layers, kind = name.split("/")
    layer = ".".join(layer.replace(".", "_") for layer in layers)
    match kind, tensor.dim():
        case "kernel", 2:
            return f"{layer}.weight", tensor.T
        case "kernel", 4:
            return f"{layer}.weight", tensor.permute(3, 2, 0, 1)
        case "scale", _:
            return f"{layer}.weight", tensor
    return f"{layer}.{kind}", tensor
