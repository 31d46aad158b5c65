"""Gate: how much each expert contributes, from the noisy image and its log-SNR alone."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from moeframe.errors import InputError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.trunk import Trunk, TrunkFeatures
from moeframe.randomness import Trajectories
from moeframe.shapes import GateWeights, Images, LogSnr


@dataclass(frozen=True)
class Routing:
    """The decision of a gate for a batch."""

    weights: GateWeights
    """The weights that mix the experts; an expert with weight zero is not evaluated."""
    probabilities: GateWeights
    """The gate's probabilities before any expert was cut; equal to `weights` for a dense gate."""


@dataclass(frozen=True)
class ExpertErrors:
    """Each expert's diffusion term of the bound, bits/dim, on the same images, noise levels and noise."""

    log_snr: LogSnr
    """Log-SNR of each draw; a draw estimates the entire integral over log-SNR."""
    bits: Float[Tensor, "batch experts"]
    """(draws, K); infinite where an expert must not be evaluated."""
    ranges: tuple[tuple[float, float], ...] = ()
    """The (lowest, highest) log-SNR at which each expert may be evaluated; no limits if empty."""


class Gate(nn.Module, Component):
    """Weights w >= 0 with Σ w = 1 per item; never sees clean data, labels or other items of the batch."""

    KIND: ClassVar[str] = "gates"
    LEARNS: ClassVar[bool] = True
    """False for a gate without parameters, which cannot be trained."""

    class Config(Component.Config):
        @property
        def programs(self) -> Mapping[str, Path]:
            """Fields that name a file whose code the gate runs: exports include it, readers must trust it."""
            return {}

        @property
        def network_settings(self) -> Mapping[str, Any]:
            """Settings that shape the gate's weights, by their keys; weights fit a gate of equal settings only.

            Empty for a gate without weights. A study compares them before it measures the weights of one variant under
            the settings of another.
            """
            return {}

        def n_evaluated(self, n_experts: int) -> int:
            """How many of `n_experts` are evaluated per image and step; used to predict cost."""
            return n_experts

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__()
        self.config = config
        self.image = image
        self.n_experts = n_experts

    @property
    def sums_to_one(self) -> bool:
        """False only for a documented ablation; merging then depends on the parametrisation."""
        return True

    @property
    def random(self) -> bool:
        """Whether the weights are drawn from `trajectories`; the likelihood then holds on average over the draws."""
        return False

    @property
    def continuous(self) -> bool:
        """Whether the weights are a continuous function of z; the ODE's change of variables needs it."""
        return True

    @property
    def switches(self) -> tuple[float, ...]:
        """The log-SNRs at which the weights jump for every z at once, such as those of a gate that switches by λ."""
        return ()

    @property
    def needs_calibration(self) -> bool:
        """Whether the gate must compare the finished experts before it can choose between them."""
        return False

    @property
    def reads_trunk(self) -> bool:
        """Whether the weights follow from the features of a trunk instead of the noisy image itself."""
        return False

    def attach(self, trunk: Trunk) -> None:
        """Receive the trunk of the mixture, before any weight is trained or loaded."""

    def calibrate(self, errors: ExpertErrors) -> None:  # noqa: ARG002
        """Choose by the errors of the experts on training images; what is chosen belongs to the state (a buffer)."""
        assert not self.needs_calibration, f"{self.name()} needs calibration but does not implement it"

    def switch_at(self, thresholds: Sequence[float]) -> None:  # noqa: ARG002
        """Use expert k between the thresholds k - 1 and k, K - 1 log-SNRs from noisy to clean."""
        raise InputError(f"gate '{self.name()}' does not switch between experts by log-SNR alone; use a gate that does")

    @abstractmethod
    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """Weights of each expert for each item."""

    def route(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Routing:  # noqa: ARG002
        """The weights and the probabilities behind them; a random gate draws from `trajectories`."""
        weights = self(z, log_snr)
        return Routing(weights, weights)

    def route_from(
        self,
        features: TrunkFeatures | None,  # noqa: ARG002
        z: Images,
        log_snr: LogSnr,
        trajectories: Trajectories | None = None,
    ) -> Routing:
        """Route in a mixture with a trunk: `features` are the trunk's, None without one."""
        return self.route(z, log_snr, trajectories)
