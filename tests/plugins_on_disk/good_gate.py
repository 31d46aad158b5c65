"""A good plugin: a gate that weighs all experts alike."""

from typing import Literal

import torch

from moeframe import Gate, hookimpl

MOEFRAME_API = 1


class EvenGate(Gate):
    """The same weight for every expert."""

    class Config(Gate.Config):
        type: Literal["even"] = "even"

    def forward(self, z, log_snr):
        return torch.full((len(z), self.n_experts), 1 / self.n_experts)


@hookimpl
def moeframe_gates():
    return [EvenGate]
