"""Entropy: the gate should not collapse onto a single expert."""

import math
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.shapes import Scalar


class EntropyLoss(Loss):
    """log K - H(gate), averaged over the batch, nats; zero at the uniform gate."""

    UNIT = "nats"
    NEEDS_GATE = True
    NEEDS_PREDICTION = False

    class Config(Loss.Config):
        type: Literal["entropy"] = "entropy"
        weight: float = Field(default=0.01, ge=0, description="λ_ent")

    config: Config

    def __call__(self, step: TrainingStep) -> Scalar:
        """Mean over items of log K + Σ_k p_k log p_k, p the gate's probabilities before any cut to top-k."""
        probabilities = step.denoised.routing.probabilities
        # clamped: at a weight that underflowed to zero the gradient of log would be infinite
        entropy = -(probabilities * probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()).sum(1)
        return (math.log(probabilities.shape[1]) - entropy).mean()
