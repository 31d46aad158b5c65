"""Expert: one denoising network, converted to velocity prediction as a function of log-SNR."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from moeframe.interfaces.component import Component, ImageShape
from moeframe.shapes import Images, LogSnr


@dataclass(frozen=True)
class Jumps:
    """Where a denoiser is not a continuous function of the noisy image and its log-SNR."""

    anywhere: str = ""
    """What jumps at places that depend on the image, in words; empty if nothing jumps there."""
    at: tuple[float, ...] = ()
    """The log-SNRs at which it jumps for every image at once."""


class Expert(nn.Module, Component):
    """Predicts the velocity of a noisy image; converts from its native prediction and time parametrisation."""

    KIND: ClassVar[str] = "experts"

    class Config(Component.Config):
        copies: int = Field(default=1, ge=1, le=1024, description="how many experts of this kind the mixture holds")
        outside: Literal["error", "clamp", "exclude"] = Field(
            default="error",
            description="at a log-SNR on which the expert is not valid: an error; clamp: its image prediction at the "
            "nearest end of its range; exclude: the other experts share its weight",
        )

        def for_copy(self, number: int) -> "Expert.Config":  # noqa: ARG002
            """The settings of one copy, counted from 0; the same for all copies by default."""
            return self

        def for_seed(self, seed: int) -> "Expert.Config":  # noqa: ARG002
            """The settings for one seed of a run; the same for all seeds by default."""
            return self

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__()
        self.config = config
        self.image = image

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """The (lowest, highest) log-SNR on which the expert is valid."""
        return (-math.inf, math.inf)

    @property
    def jumps(self) -> Jumps:
        """Where it jumps: an expert that holds a gate may; a network alone does not."""
        return Jumps()

    def provenance(self) -> Mapping[str, str]:
        """Where the weights come from: `source`, `licence`, hashes; empty for weights that this run trains."""
        return {}

    def core(self) -> "Expert":
        """The expert itself, or the single expert that it wraps."""
        return self

    def architecture(self) -> Mapping[str, Any]:
        """What experts must share, besides names and shapes of tensors, for their weights to be interchangeable."""
        return self.config.model_dump(mode="json", exclude={"copies", "outside"})

    @abstractmethod
    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity v̂ of each noisy image z; each item on its own, from (z, λ) alone."""
