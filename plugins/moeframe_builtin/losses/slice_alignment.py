"""Slice alignment: the gate should recognise the slice of an image from its noisy version."""

from typing import Literal

import torch
import torch.nn.functional as F

from moeframe.errors import DataError
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.shapes import Scalar


class SliceAlignmentLoss(Loss):
    """Cross-entropy of the gate's weights against the slice of each image, nats; least at the posterior p(k | z, λ)."""

    UNIT = "nats"
    NEEDS_GATE = True
    NEEDS_PREDICTION = False

    class Config(Loss.Config):
        type: Literal["slice_alignment"] = "slice_alignment"

    config: Config

    def __call__(self, step: TrainingStep) -> Scalar:
        """Mean over items of -log p_s, p the gate's probabilities before any cut to top-k, s the image's slice."""
        probabilities = step.denoised.routing.probabilities
        if len(self.slice_shares) != probabilities.shape[1]:
            raise DataError(
                f"slice_alignment: {len(self.slice_shares)} slice for {probabilities.shape[1]} experts; "
                "add a section 'slicer', which makes one slice per expert"
            )
        # clamped: at a weight that underflowed to zero the loss and its gradient would be infinite
        return F.nll_loss(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log(), step.slices)
