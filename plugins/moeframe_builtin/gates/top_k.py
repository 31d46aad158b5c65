"""Sparse gate: only the k largest weights take part, renormalised.

Shazeer et al. 2017, https://arxiv.org/abs/1701.06538.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.gate import Routing
from moeframe_builtin.gates.encoder import EncoderConfig, EncoderGate


class TopKGate(EncoderGate):
    """The k most probable experts of a softmax gate, renormalised; the others are not evaluated, nor in training."""

    class Config(EncoderConfig):
        type: Literal["top_k"] = "top_k"
        k: int = Field(default=2, ge=1, description="experts evaluated per item")
        renormalize: bool = Field(
            default=True, description="false: the plain cut, an ablation whose weights do not sum to one"
        )

        def n_evaluated(self, n_experts: int) -> int:
            """k."""
            return min(self.k, n_experts)

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """More chosen than there are."""
            yield from super().conflicts(facts)
            if self.k > facts.n_experts:
                yield "k", f"k = {self.k} exceeds the number of experts, {facts.n_experts}; lower k or add experts"

    config: Config

    @property
    def sums_to_one(self) -> bool:
        """False for the ablation without renormalisation."""
        return self.config.renormalize

    @property
    def continuous(self) -> bool:
        """False where an expert can be cut: the weights jump when another takes its place."""
        return self.config.k >= self.n_experts

    def decide(self, logits: Float[Tensor, "batch experts"]) -> Routing:
        """Exactly k non-zero weights per item; of equal weights those of the lower-numbered experts are kept."""
        probabilities = logits.softmax(1)
        # A stable sort, because topk breaks ties differently on different devices and batch sizes.
        chosen = probabilities.sort(dim=1, descending=True, stable=True).indices[:, : self.config.k]
        mask = torch.zeros_like(probabilities).scatter(1, chosen, 1.0)
        weights = probabilities * mask
        if self.config.renormalize:
            weights = weights / weights.sum(1, keepdim=True)
        return Routing(weights, probabilities)
