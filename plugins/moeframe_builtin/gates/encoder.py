"""The shared encoder of the learned gates: noisy state and noise level in, one logit per expert out."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import Gate, Routing
from moeframe.interfaces.trunk import Trunk, TrunkFeatures
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr


class EncoderConfig(Gate.Config):
    """Size of the encoder and its two-layer head."""

    width: int = Field(default=32, ge=1, description="channels of the convolutional encoder")
    hidden: int = Field(default=64, ge=1, description="width of the two-layer MLP")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="gate dropout, in training only")
    reads: Literal["image", "trunk"] = Field(
        default="image", description="trunk: the features of the mixture's trunk in place of an encoder of its own"
    )

    @property
    def network_settings(self) -> Mapping[str, Any]:
        """Size and input of the encoder."""
        return {"width": self.width, "hidden": self.hidden, "reads": self.reads}

    def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
        """Report a trunk that the spec lacks."""
        if self.reads == "trunk" and not facts.has_trunk:
            yield "reads", "the spec has no trunk to read; add a section 'trunk', or set reads: image"


class EncoderGate(Gate):
    """A gate that decides by logits of an encoder, of the noisy image or of the trunk's features."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        self.encoder = GateEncoder(config, image, n_experts)

    @property
    def reads_trunk(self) -> bool:
        """As the config says."""
        return self.config.reads == "trunk"

    def attach(self, trunk: Trunk) -> None:
        """With `reads: trunk` the head takes the trunk's summary, and there are no convolutions."""
        if self.reads_trunk:
            self.encoder = GateEncoder(self.config, self.image, self.n_experts, summary_width=trunk.summary_width)

    def decide(self, logits: Float[Tensor, "batch experts"]) -> Routing:
        """Weights and probabilities from the logits: softmax, unless a final class cuts."""
        weights: GateWeights = logits.softmax(1)
        return Routing(weights, weights)

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """The weights of `route`."""
        return self.route(z, log_snr).weights

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:  # noqa: ARG002
        """From the noisy image."""
        return self.decide(self.encoder(z, log_snr))

    def route_from(
        self, features: TrunkFeatures | None, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None
    ) -> Routing:
        """From the trunk's features, with `reads: trunk`."""
        if not self.reads_trunk:
            return self.route(z, log_snr, trajectories)
        assert features is not None, "Config.conflicts reports this"
        return self.decide(self.encoder.logits(features.summary, log_snr))


class GateEncoder(nn.Module):
    """Two strided convolutions and a global mean, joined with the log-SNR, then a two-layer MLP.

    The last layer starts at zero, so an untrained gate is uniform. With `summary_width` the head takes a summary of
    that width, and there are no convolutions.
    """

    def __init__(self, config: EncoderConfig, image: ImageShape, n_experts: int, *, summary_width: int | None = None):
        super().__init__()
        if summary_width is None:
            self.convolutions = nn.Sequential(
                nn.Conv2d(image.channels, config.width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(config.width, config.width, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(config.width, config.width, 3, stride=2, padding=1),
                nn.SiLU(),
            )
        width = config.width if summary_width is None else summary_width
        self.head = nn.Sequential(
            nn.Linear(width + len(_FREQUENCIES) * 2 + 1, config.hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, n_experts),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: Images, log_snr: LogSnr) -> Float[Tensor, "batch experts"]:
        """Logits of the experts from the noisy image."""
        return self.logits(self.convolutions(z).mean((2, 3)), log_snr)

    def logits(self, summary: Float[Tensor, "batch width"], log_snr: LogSnr) -> Float[Tensor, "batch experts"]:
        """Logits of the experts from a vector per image."""
        logits: Tensor = self.head(torch.cat([summary, _log_snr_features(log_snr).to(summary.dtype)], 1))
        return logits


_FREQUENCIES = tuple(math.pi / period for period in (40.0, 20.0, 10.0, 5.0))


def _log_snr_features(log_snr: LogSnr) -> Float[Tensor, "batch features"]:
    angles = log_snr[:, None] * torch.tensor(_FREQUENCIES, dtype=log_snr.dtype, device=log_snr.device)
    return torch.cat([log_snr[:, None] / 10, angles.sin(), angles.cos()], 1)
