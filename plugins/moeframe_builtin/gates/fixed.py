"""Fixed gate: weights that the spec states, the same for every image of a noise level."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.switching import band_of
from moeframe.shapes import GateWeights, Images, LogSnr
from moeframe_builtin.gates.bands import increasing, outside

ROUNDING = 1e-5
"""How far the weights of a band may differ from one: the rounding of five decimals."""


class FixedGate(Gate):
    """Stated weights per band of log-SNR; one band if no threshold is given."""

    LEARNS = False

    class Config(Gate.Config):
        type: Literal["fixed"] = "fixed"
        thresholds: tuple[float, ...] = Field(
            default=(), description="increasing log-SNRs between the bands; a band begins at its threshold"
        )
        weights: tuple[tuple[float, ...], ...] = Field(
            description="for each band, noisy to clean, one weight per expert; each band sums to one"
        )

        @field_validator("thresholds")
        @classmethod
        def _increase(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
            return increasing(thresholds)

        @field_validator("weights")
        @classmethod
        def _bands(cls, weights: tuple[tuple[float, ...], ...], info: Any) -> tuple[tuple[float, ...], ...]:
            thresholds = info.data.get("thresholds")
            if thresholds is not None and len(weights) != len(thresholds) + 1:
                raise ValueError(
                    f"{len(weights)} bands for {len(thresholds)} threshold(s); give {len(thresholds) + 1} lists of "
                    "weights, one more than thresholds"
                )
            for i, band in enumerate(weights):
                if any(weight < 0 for weight in band):
                    raise ValueError(f"band {i} has a negative weight: {list(band)}; weights are zero or more")
                if abs(sum(band) - 1) > ROUNDING:
                    raise ValueError(f"the weights of band {i} sum to {sum(band):g}, not to 1: {list(band)}")
            return weights

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """Bands that do not fit the experts or the schedule."""
            for i, band in enumerate(self.weights):
                if len(band) != facts.n_experts:
                    yield (
                        "weights",
                        f"band {i} has {len(band)} weights for {facts.n_experts} experts; give one weight per expert",
                    )
            yield from outside("thresholds", self.thresholds, facts)

    config: Config
    weights: Tensor
    thresholds: Tensor

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        weights = torch.tensor(config.weights, dtype=torch.float64)
        # float64: a threshold rounded to float32 may move past its log-SNR
        thresholds = torch.tensor(config.thresholds, dtype=torch.float64)
        self.register_buffer("weights", weights / weights.sum(1, keepdim=True), persistent=False)
        self.register_buffer("thresholds", thresholds, persistent=False)

    @property
    def switches(self) -> tuple[float, ...]:
        """The ends of the bands."""
        return self.config.thresholds

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """The weights of the band."""
        return self.weights.to(z.dtype)[band_of(log_snr, self.thresholds)]
