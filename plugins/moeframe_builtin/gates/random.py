"""Random gate: one expert drawn uniformly, the baseline for routing."""

from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.gate import Gate, Routing
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr


class RandomGate(Gate):
    """One uniformly random expert, for a trajectory (`per_sample`) or at each step (`per_step`)."""

    LEARNS = False

    class Config(Gate.Config):
        type: Literal["random"] = "random"
        redraw: Literal["per_sample", "per_step"] = Field(
            default="per_step",
            description="per_sample keeps one expert for a trajectory, per_step draws at each noise level",
        )

        def n_evaluated(self, n_experts: int) -> int:  # noqa: ARG002
            """The one that is drawn."""
            return 1

    config: Config

    @property
    def random(self) -> bool:
        """Always."""
        return True

    @property
    def continuous(self) -> bool:
        """False: the weights are drawn, not a function of the noisy image."""
        return False

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:  # noqa: ARG002
        """Always raises ValueError: the draws come from the trajectories that `route` is given."""
        raise ValueError("a random gate needs trajectories: pass them as the third argument of the denoiser")

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:
        """One-hot weights; a function of (seed, item) or of (seed, item, λ), never of the batch."""
        if trajectories is None:
            return super().route(z, log_snr)
        per = log_snr if self.config.redraw == "per_step" else None
        chosen = trajectories.choice(self.n_experts, "random_gate", per)
        weights = torch.nn.functional.one_hot(chosen, self.n_experts).to(z)
        return Routing(weights, weights)
