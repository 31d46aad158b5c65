"""Soft gate: a softmax over all experts."""

from typing import Literal

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import Gate
from moeframe.shapes import GateWeights, Images, LogSnr
from moeframe_builtin.gates.encoder import EncoderConfig, GateEncoder


class SoftmaxGate(Gate):
    """Softmax over a small encoder of the noisy state and its noise level; every expert is evaluated."""

    class Config(EncoderConfig):
        type: Literal["softmax"] = "softmax"

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        self.encoder = GateEncoder(config, image, n_experts)

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """softmax of the encoder's logits."""
        weights: GateWeights = self.encoder(z, log_snr).softmax(1)
        return weights
