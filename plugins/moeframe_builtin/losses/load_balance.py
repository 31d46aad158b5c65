"""Load balance: the experts' average use should follow a prior."""

from typing import Literal

import torch
from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.shapes import Scalar


class LoadBalanceLoss(Loss):
    """KL(mean gate probability over the batch ‖ prior), nats; zero at balance."""

    UNIT = "nats"
    NEEDS_GATE = True
    NEEDS_PREDICTION = False

    class Config(Loss.Config):
        type: Literal["load_balance"] = "load_balance"
        weight: float = Field(default=0.1, ge=0, description="λ_load")
        prior: Literal["uniform", "slices"] = Field(
            default="uniform", description="slices: the slices' shares of the data"
        )

    config: Config

    def __call__(self, step: TrainingStep) -> Scalar:
        """Σ_k m_k log(m_k / prior_k), m = mean over the batch of the gate's probabilities before any cut to top-k."""
        mean = step.denoised.routing.probabilities.mean(0)
        shares = self.slice_shares if self.config.prior == "slices" else (1 / len(mean),) * len(mean)
        if len(shares) != len(mean):
            raise DataError(
                f"load_balance: prior 'slices' has {len(shares)} slice for {len(mean)} experts; "
                "add a section 'slicer', or use prior: uniform"
            )
        prior = torch.tensor(shares, dtype=mean.dtype, device=mean.device)
        # clamped: at a weight that underflowed to zero the gradient of log would be infinite
        return (mean * (mean.clamp_min(torch.finfo(mean.dtype).tiny) / prior).log()).sum()
