"""Soft gate: softmax over the encoder's logits."""

from typing import Literal

from moeframe_builtin.gates.encoder import EncoderConfig, EncoderGate


class SoftmaxGate(EncoderGate):
    """Softmax over a small encoder of the noisy state and its noise level; every expert is evaluated."""

    class Config(EncoderConfig):
        type: Literal["softmax"] = "softmax"

    config: Config
