"""Metric: one measurement of a finished model, and how it was computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field

from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.trunk import Trunk
from moeframe.randomness import Streams
from moeframe.shapes import Images, Levels

Better = Literal["lower", "higher"]
Role = Literal["likelihood", "quality", "reconstruction", "diversity", "cost", "other"]
"""What a metric is about: reports lead with one of likelihood and one of sample quality, and plot them together."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reconstructions:
    """Test images, and their reconstructions from a stated noise level."""

    originals: Levels
    images: Levels
    log_snr: float


class Evaluation(ABC):
    """What a metric can read of a run. Samples and reconstructions are drawn once and shared by all metrics."""

    denoiser: Denoiser
    experts: tuple[Expert, ...]
    gate: Gate | None
    trunk: Trunk | None
    schedule: NoiseSchedule
    sampler: Sampler
    image: ImageShape
    train: Examples
    test: Examples
    streams: Streams
    device: torch.device

    @abstractmethod
    def sample_batches(self, n: int) -> Iterator[Levels]:
        """The first n samples of this evaluation, integers 0 .. levels-1, in batches; read again at each call.

        Raises UnavailableError, with their number, when samples are not finite.
        """

    @abstractmethod
    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return `compute()`, evaluated once per key: features that several metrics use."""

    @abstractmethod
    def reconstructions(self, log_snr: float, n: int) -> Reconstructions:
        """n test images, those of `test_batches`, noised to `log_snr` and brought back by the deterministic sampler.

        Raises UnavailableError, with their number, when some are not finite.
        """

    @abstractmethod
    def test_batches(self, n: int | None) -> Iterator[tuple[int, Levels]]:
        """(place of the first image, images) of n test images in batches: all (n None or as many) in their order.

        Fewer are drawn at random, the same for every seed and every metric: the first of a folder are of few classes.
        """

    @abstractmethod
    def pixels(self, levels: Levels) -> Images:
        """Integer images as model input on the device."""


def which_images(n: int, available: int) -> str:
    """The test images of `Evaluation.test_batches`, in words.

    >>> which_images(449, 449), which_images(256, 449)
    ('all 449 test images', '256 of 449 test images, drawn at random, the same for every seed')
    """
    return (
        f"all {n} test images"
        if n == available
        else f"{n} of {available} test images, drawn at random, the same for every seed"
    )


@dataclass(frozen=True)
class Measurement:
    """One measured value. `how` holds everything that a reader needs to compute it again."""

    value: float
    unit: str
    better: Better
    n: int
    """Sample size behind the value."""
    how: Mapping[str, Any]
    interval: tuple[float, float] | None = None
    """95 % interval within this run (not over seeds), or None if there is none."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components of the value, or further values, in the same unit unless the name says otherwise."""


class Metric(Component):
    """Measures one value of an evaluation. Raises UnavailableError, saying what to do, where it cannot."""

    KIND: ClassVar[str] = "metrics"
    DETERMINISTIC: ClassVar[bool] = True
    """False for timings and memory, which differ between two runs of the same command."""
    ROLE: ClassVar[Role] = "other"
    """What the metric measures; a report leads with the first metric of likelihood and the first of quality."""

    class Config(Component.Config):
        label: str | None = Field(default=None, description="name in results.json, where one metric is measured twice")

        @property
        def key(self) -> str:
            """The metric's name in results.json."""
            return self.label or self.type

    config: Config

    def __init__(self, config: Config):
        self.config = config

    def unavailable(self) -> str | None:
        """Why this metric cannot be computed here and what to do, or None; answers without computing anything."""
        return None

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> Measurement:
        """Measure the evaluation. Raises UnavailableError, saying what to do, where it cannot."""
