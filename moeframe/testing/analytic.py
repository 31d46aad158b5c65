"""Components whose outputs are known in closed form: images of independent Gaussian pixels, mixtures, a plain trunk."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from moeframe.diffusion import alpha, per_image, sigma
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.trunk import AdapterExpert, Trunk, TrunkFeatures
from moeframe.model.mixture import MergedDenoiser
from moeframe.shapes import GateWeights, Images, LogSnr


class GaussianExpert(Expert):
    """The exact velocity for images of independent pixels from N(mean, std²)."""

    class Config(Expert.Config):
        type: Literal["gaussian_expert"] = "gaussian_expert"
        mean: float = 0.0
        std: float = Field(default=0.5, gt=0)

        def variance(self, log_snr: Tensor) -> Tensor:
            """Variance α² std² + σ² of a pixel of z."""
            return torch.sigmoid(log_snr) * self.std**2 + torch.sigmoid(-log_snr)

    config: Config

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """E[α ε - σ x | z] = α σ (1 - std²) / Var(z) · (z - α mean) - σ mean."""
        a, s = per_image(alpha(log_snr), z), per_image(sigma(log_snr), z)
        mean, variance = self.config.mean, per_image(self.config.variance(log_snr), z)
        return a * s * (1 - self.config.std**2) / variance * (z - a * mean) - s * mean


class PosteriorGate(Gate):
    """The exact w_k = p(k | z, λ) for Gaussian slices; with their experts it is the mixture's true denoiser."""

    class Config(Gate.Config):
        type: Literal["gaussian_posterior"] = "gaussian_posterior"
        slices: tuple[GaussianExpert.Config, ...] = tuple(GaussianExpert.Config(mean=m) for m in (-0.6, -0.2, 0.2, 0.6))
        shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)

    config: Config

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """softmax of log share_k - ‖z - α mean_k‖² / (2 Var_k) - D/2 log Var_k."""
        logits = []
        for share, part in zip(self.config.shares, self.config.slices, strict=True):
            variance = part.variance(log_snr).to(z.dtype)
            squares = (z - per_image(alpha(log_snr), z) * part.mean).square().flatten(1).sum(1)
            logits.append(math.log(share) - 0.5 * (squares / variance + self.image.n_dims * variance.log()))
        return torch.stack(logits, 1).softmax(1)


class PlainTrunk(Trunk):
    """Two convolutions, one before and one after the adapters: the smallest trunk that tests an adapter."""

    class Config(Trunk.Config):
        type: Literal["plain_trunk"] = "plain_trunk"
        width: int = Field(default=6, ge=1)

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        self.early = nn.Conv2d(image.channels, config.width, 3, padding=1)
        self.late = nn.Conv2d(config.width, image.channels, 3, padding=1)

    @property
    def summary_width(self) -> int:
        """Channels of the first convolution."""
        return self.config.width

    @property
    def adaptable(self) -> Mapping[str, Tensor]:
        """The second convolution."""
        return {"late": self.late.weight}

    @property
    def block_widths(self) -> Sequence[int]:
        """Between the two."""
        return [self.config.width]

    def forward(self, z: Images, log_snr: LogSnr) -> TrunkFeatures:
        """The first convolution, scaled by the noise level."""
        maps = torch.tanh(self.early(z) * per_image(sigma(log_snr), z))
        return TrunkFeatures((maps,), maps.mean((2, 3)))

    def finish(self, features: TrunkFeatures, adapter: AdapterExpert, z: Images, log_snr: LogSnr) -> Images:  # noqa: ARG002
        """The second convolution with the adapter's weight."""
        (maps,) = features.tensors
        weight = adapter.changed("late", self.late.weight)
        return F.conv2d(adapter.after_block(0, maps), weight, self.late.bias, padding=1)


def gaussian_mixture(
    slices: Sequence[GaussianExpert.Config], shares: Sequence[float], image: ImageShape
) -> MergedDenoiser:
    """The true denoiser of a mixture of Gaussians: one expert per slice and the posterior gate."""
    config = PosteriorGate.Config(slices=tuple(slices), shares=tuple(shares))
    gate = PosteriorGate(config, image=image, n_experts=len(slices))
    return MergedDenoiser([GaussianExpert(part, image=image) for part in slices], gate)
