"""The shared encoder of the learned gates: noisy state and noise level in, one logit per expert out."""

import math

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import Gate
from moeframe.shapes import Images, LogSnr


class EncoderConfig(Gate.Config):
    """Size of the encoder and its two-layer head."""

    width: int = Field(default=32, ge=1, description="channels of the convolutional encoder")
    hidden: int = Field(default=64, ge=1, description="width of the two-layer MLP")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="gate dropout, in training only")


class GateEncoder(nn.Module):
    """Two strided convolutions and a global mean, joined with the log-SNR, then a two-layer MLP.

    The last layer starts at zero, so an untrained gate is uniform.
    """

    def __init__(self, config: EncoderConfig, image: ImageShape, n_experts: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(image.channels, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, config.width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, config.width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Sequential(
            nn.Linear(config.width + len(_FREQUENCIES) * 2 + 1, config.hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, n_experts),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: Images, log_snr: LogSnr) -> Float[Tensor, "batch experts"]:
        """Logits of the experts."""
        features = self.convolutions(z).mean((2, 3))
        logits: Tensor = self.head(torch.cat([features, _log_snr_features(log_snr).to(features.dtype)], 1))
        return logits


_FREQUENCIES = tuple(math.pi / period for period in (40.0, 20.0, 10.0, 5.0))


def _log_snr_features(log_snr: LogSnr) -> Float[Tensor, "batch features"]:
    angles = log_snr[:, None] * torch.tensor(_FREQUENCIES, dtype=log_snr.dtype, device=log_snr.device)
    return torch.cat([log_snr[:, None] / 10, angles.sin(), angles.cos()], 1)
