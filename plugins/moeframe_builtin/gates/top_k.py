"""Sparse gate: only the k largest weights take part, renormalised (Shazeer et al. 2017)."""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import Gate, Routing
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr
from moeframe_builtin.gates.encoder import EncoderConfig, GateEncoder


class TopKGate(Gate):
    """The k most probable experts of a softmax gate, renormalised; the others are not evaluated, nor in training."""

    class Config(EncoderConfig):
        type: Literal["top_k"] = "top_k"
        k: int = Field(default=2, ge=1, description="experts evaluated per item")
        renormalize: bool = Field(
            default=True, description="false: the plain cut, an ablation whose weights do not sum to one"
        )

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """More chosen than there are."""
            if self.k > facts.n_experts:
                yield "k", f"k = {self.k} exceeds the number of experts, {facts.n_experts}; lower k or add experts"

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        self.encoder = GateEncoder(config, image, n_experts)

    @property
    def sums_to_one(self) -> bool:
        """False for the ablation without renormalisation."""
        return self.config.renormalize

    @property
    def continuous(self) -> bool:
        """False where an expert can be cut: the weights jump when another takes its place."""
        return self.config.k >= self.n_experts

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """The weights of `route`."""
        return self.route(z, log_snr).weights

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:  # noqa: ARG002
        """Exactly k non-zero weights per item; of equal weights those of the lower-numbered experts are kept."""
        probabilities = self.encoder(z, log_snr).softmax(1)
        # A stable sort, because topk breaks ties differently on different devices and batch sizes.
        chosen = probabilities.sort(dim=1, descending=True, stable=True).indices[:, : self.config.k]
        mask = torch.zeros_like(probabilities).scatter(1, chosen, 1.0)
        weights = probabilities * mask
        if self.config.renormalize:
            weights = weights / weights.sum(1, keepdim=True)
        return Routing(weights, probabilities)
