"""Loss: one term of the objective."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from moeframe.interfaces.component import Component
from moeframe.interfaces.denoiser import Denoised
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.shapes import Images, LogSnr, PerItem, Scalar, SliceIds


@dataclass(frozen=True)
class TrainingStep:
    """Everything that one training step knows."""

    x: Images
    z: Images
    log_snr: LogSnr
    rate: PerItem
    """-dλ/dt of the schedule at each item's time."""
    velocity: Images
    """The true velocity."""
    denoised: Denoised
    slices: SliceIds
    """Slice of each item, for losses that align the gate with the slices."""


class Loss(Component):
    """A scalar per training step, in bits/dim or dimensionless, zero at its optimum where one exists."""

    KIND: ClassVar[str] = "losses"
    UNIT: ClassVar[str] = "dimensionless"
    NEEDS_GATE: ClassVar[bool] = False
    """True for a term that is about the gate: it does not apply in the warm start, nor without a gate."""
    NEEDS_PREDICTION: ClassVar[bool] = True
    """False for a term that looks at the routing alone: where all are such, a step does not evaluate the experts."""

    class Config(Component.Config):
        weight: float = Field(default=1.0, ge=0, description="factor of this term in the objective")

    config: Config

    def __init__(self, config: Config, *, schedule: NoiseSchedule, slice_shares: tuple[float, ...]):
        self.config = config
        self.schedule = schedule
        self.slice_shares = slice_shares

    @abstractmethod
    def __call__(self, step: TrainingStep) -> Scalar:
        """The term's value before its weight."""
