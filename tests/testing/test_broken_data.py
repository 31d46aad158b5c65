"""Every rule for schedules, slicers, datasets and metrics is broken once, and the contract checks catch it."""

import math
import re
from typing import Any, ClassVar, Literal

import pytest
import torch
from small_evaluation import evaluation_of

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples
from moeframe.interfaces.metric import Measurement, Metric
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.testing import check_component


@pytest.fixture(scope="module")
def evaluation(registry, tmp_path_factory):
    return evaluation_of(registry, tmp_path_factory.mktemp("evaluation"))


class Line(NoiseSchedule):
    """10 - 20 t."""

    class Config(NoiseSchedule.Config):
        type: Literal["line"] = "line"

    def log_snr(self, times):
        return 10 - 20 * times


class ReversedLine(Line):
    """t = 0 is noise."""

    def log_snr(self, times):
        return 20 * times - 10


class Plateau(Line):
    """Constant around t = 1/2."""

    def log_snr(self, times):
        return 10 - 20 * times.minimum((times - 0.01).maximum(times.new_tensor(0.5)))


class WrongRate(Line):
    """Rate per step of 1000 instead of per unit of time."""

    def rate(self, times):
        return torch.full_like(times, 0.02)


class WrongInverse(Line):
    """Inverts another line."""

    def time_of(self, log_snr):
        return 0.5 - log_snr / 40


class SingleOnly(Line):
    """Loses the type of its argument."""

    def log_snr(self, times):
        return super().log_snr(times).float()


class HalfSlicer(Slicer):
    """By brightness, cut at the training mean."""

    threshold: float = 0.0

    class Config(Slicer.Config):
        type: Literal["half"] = "half"

    def brightness(self, examples):
        return examples.images(torch.arange(len(examples))).double().mean((1, 2, 3))

    def fit(self, train):
        self.threshold = float(self.brightness(train).mean())

    def assign(self, examples):
        return (self.brightness(examples) > self.threshold).long()

    def state(self):
        return {"threshold": [self.threshold]}

    def restore(self, state):
        (self.threshold,) = state["threshold"]


class RankSlicer(HalfSlicer):
    """Cuts whatever it is given in halves."""

    def assign(self, examples):
        return (self.brightness(examples).argsort().argsort() * 2 // len(examples)).long()


class PositionSlicer(HalfSlicer):
    """Goes by the number of the example."""

    def assign(self, examples):
        return torch.arange(len(examples)) % self.n_slices


class OverflowingSlicer(HalfSlicer):
    """Numbers slices from one."""

    def assign(self, examples):
        return super().assign(examples) + self.n_slices - 1


class ForgetfulSlicer(HalfSlicer):
    """Keeps its threshold out of the state."""

    def state(self):
        return {}

    def restore(self, state):
        pass


class RefittingSlicer(HalfSlicer):
    """Learns from whatever it assigns."""

    def assign(self, examples):
        ids = super().assign(examples)
        if len(examples) > 1:
            self.fit(examples)
        return ids


class Dots(Dataset):
    """Four images of one pixel."""

    top: ClassVar[int] = 3
    extra: ClassVar[dict[str, Any]] = {}

    class Config(Dataset.Config):
        type: Literal["dots"] = "dots"

    @property
    def image(self):

        return ImageShape(1, 1, 1, 4)

    def split(self, name):
        levels = torch.arange(4).clamp(max=self.top).view(4, 1, 1, 1)
        return InMemoryExamples(levels * self.top // 3, torch.zeros(4, dtype=torch.long))

    def card(self):
        facts = {"source": "made up", "licence": "none", "splits": {"train": 4, "test": 4}, "split_rule": "all in both"}
        return {**facts, "levels": 4, "transformations": [], "files": {}, **self.extra}


class TooBrightDots(Dots):
    """Holds a level beyond the last."""

    top = 4


class PathCardDots(Dots):
    """Has a card that JSON changes."""

    extra = {"splits": (4, 4)}  # noqa: RUF012


class RandomDots(Dots):
    """Draws again at each reading."""

    def split(self, name):
        return InMemoryExamples(torch.randint(0, 4, (40, 1, 1, 1)), torch.zeros(40, dtype=torch.long))


class One(Metric):
    """Always one."""

    value: ClassVar[float] = 1.0

    class Config(Metric.Config):
        type: Literal["one"] = "one"

    def measure(self, evaluation):
        return Measurement(value=self.value, unit="ones", better="higher", n=1, how={"by": "definition"})


class Infinite(One):
    """Divided by zero."""

    value = math.inf


class Wavering(One):
    """Another value each time."""

    def measure(self, evaluation):
        return Measurement(value=float(torch.rand(())), unit="ones", better="higher", n=1, how={"by": "chance"})


class Silent(One):
    """Does not say how."""

    def measure(self, evaluation):
        return Measurement(value=1.0, unit="ones", better="higher", n=1, how={})


@pytest.mark.parametrize("component", [Line, HalfSlicer, Dots, One])
def test_the_sound_original_of_each_broken_component_passes(component, evaluation):
    check_component(component, evaluation=evaluation)


@pytest.mark.parametrize(
    ("component", "rule"),
    [
        (ReversedLine, "λ(t) is strictly decreasing"),
        (Plateau, "λ(t) is strictly decreasing"),
        (WrongRate, "rate is -dλ/dt (relative error 1.0e+00)"),
        (WrongInverse, "time_of is the inverse of log_snr"),
        (SingleOnly, "λ(t) is shaped like t"),
        (RankSlicer, "an example's slice does not depend on the others"),
        (PositionSlicer, "order does not matter"),
        (OverflowingSlicer, "slices are numbered 0 .. n_slices-1"),
        (ForgetfulSlicer, "its state survives JSON"),
        (RefittingSlicer, "thresholds depend on the training split alone"),
        (TooBrightDots, "levels are in 0 .. levels-1"),
        (PathCardDots, "the card holds JSON values only"),
        (RandomDots, "two readings are equal"),
        (Infinite, "value, interval and parts are finite"),
        (Wavering, "a second measurement is equal"),
        (Silent, "unit, sample size and how are stated"),
    ],
)
def test_a_broken_component_is_caught_and_named_with_the_rule(component, rule, evaluation):
    with pytest.raises(AssertionError, match=re.escape(rule)) as error:
        check_component(component, evaluation=evaluation)
    assert component.__name__ in str(error.value)
    assert component.KIND in str(error.value)
