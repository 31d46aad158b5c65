"""Mutual information: decided for each image, balanced over all of them."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.shapes import Scalar


class MutualInfoLoss(Loss):
    """log K minus the information that an image gives about its expert, nats; zero when decided and balanced."""

    UNIT = "nats"
    NEEDS_GATE = True
    NEEDS_PREDICTION = False

    class Config(Loss.Config):
        type: Literal["mutual_info"] = "mutual_info"
        weight: float = Field(default=0.01, ge=0, description="replaces the λ_ent of the entropy loss")

    config: Config

    def __call__(self, step: TrainingStep) -> Scalar:
        """log K - H(mean p) + mean H(p), p the gate's probabilities before any cut to top-k."""
        probabilities = step.denoised.routing.probabilities
        information = _entropy(probabilities.mean(0)) - _entropy(probabilities).mean()
        return math.log(probabilities.shape[1]) - information


def _entropy(probabilities: Tensor) -> Tensor:
    """H of the last axis, nats."""
    # clamped: at a weight that underflowed to zero the gradient of log would be infinite
    return -(probabilities * probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()).sum(-1)
