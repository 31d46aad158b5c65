"""Uniform gate: the plain average of all experts."""

from typing import Literal

import torch

from moeframe.interfaces.gate import Gate
from moeframe.shapes import GateWeights, Images, LogSnr


class UniformGate(Gate):
    """Weight 1/K for every expert, always."""

    LEARNS = False

    class Config(Gate.Config):
        type: Literal["uniform"] = "uniform"

    config: Config

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:  # noqa: ARG002
        """1/K."""
        return torch.full((len(z), self.n_experts), 1 / self.n_experts, dtype=z.dtype, device=z.device)
