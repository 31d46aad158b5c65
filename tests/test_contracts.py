"""Every installed component keeps its kind's contract, and a component that breaks one is caught."""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from official_celeba_hq import write_celeba_hq
from official_cifar10 import write_cifar10
from official_edm import write_edm
from official_lsun import write_lsun
from official_vdm import write_vdm
from PIL import Image
from pydantic import ConfigDict
from small_diffusers import small_network, write_flat

from moeframe.assembly import assemble
from moeframe.diffusion import image_from_velocity
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate, Routing
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Measurement, Metric
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.model.sampling import ddim_trajectory
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.registry import Registry
from moeframe.runs.loaded import load
from moeframe.runs.pipeline import run
from moeframe.spec.binding import bind
from moeframe.testing import GaussianExpert, PlainTrunk, PosteriorGate, check_component
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert

SLOW = {"frechet", "precision", "recall"}  # load their feature network
INSTALLED = [
    pytest.param(
        provided.component,
        id=f"{kind}/{provided.component.name()}",
        marks=[pytest.mark.slow] * (provided.component.name() in SLOW),
    )
    for kind in KINDS
    for provided in Registry.installed().components(kind)
]


@pytest.fixture(scope="module")
def evaluation(registry, tmp_path_factory) -> ModelEvaluation:
    """Two untrained experts and a gate on 8x8 Gaussian images."""
    data = {
        "name": "contracts",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 8, "levels": 16, "n_train": 12, "n_test": 12},
        "slicer": {"type": "color_variance"},
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "copies": 2, "channels": 4}],
        "gate": {"type": "softmax", "width": 4},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 3},
    }
    assembly = assemble(bind(data, registry), registry, seed=0)
    return ModelEvaluation(assembly, assembly.model, tmp_path_factory.mktemp("evaluation"))


def tiny_fashion_mnist(folder: Path) -> Path:
    """Fashion-MNIST's idx files with two images each."""
    folder.mkdir()
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(i % 256 for i in range(2 * 28 * 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2) + bytes((0, 9)))
    return folder


@dataclass(frozen=True)
class Loaded:
    """Settings of an expert that loads a checkpoint, and the images that the checkpoint is made for."""

    settings: dict[str, Any]
    image: ImageShape


@pytest.fixture
def loaded(tmp_path, tiny_spec) -> dict[str, Callable[[], Loaded]]:
    """Writers of a small checkpoint of each family, by the expert's name."""
    colour, grey = ImageShape(3, 8, 8, 256), ImageShape(1, 4, 4, 8)
    # mild: at the ends of DDPM's own chain 1/α or 1/σ times float32's rounding passes the contract's tolerance
    mild = {"beta_start": 0.01, "beta_end": 0.01, "num_train_timesteps": 200}

    def run_folder() -> Path:
        run(tiny_spec, out=tmp_path / "run", overrides=["training.steps=1"])
        return tmp_path / "run"

    return {
        "checkpoint": lambda: Loaded({"path": save_expert(load(run_folder()).experts[0], tmp_path / "expert")}, grey),
        "diffusers": lambda: Loaded({"path": write_flat(tmp_path / "unet", small_network(), **mild)}, colour),
        "edm": lambda: Loaded({"path": write_edm(tmp_path / "edm.pkl")}, colour),
        "run": lambda: Loaded({"path": run_folder(), "expert": 1}, grey),
        "vdm": lambda: Loaded({"path": write_vdm(tmp_path / "vdm.flax", width=32)}, colour),
    }


@pytest.fixture
def configs(tmp_path, registry) -> dict[str, dict[str, Any]]:
    """Settings for components that have some without a default."""
    for split in ("train", "test"):
        for i in range(3):
            path = tmp_path / split / "grey" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), 40 * i).save(path)
    parts = [registry.get(Slicer, name).Config() for name in ("texture", "lighting")]
    ends = {"experts": [registry.get(Expert, "unet").Config(channels=4)] * 2}
    return {
        "average": ends,
        "slerp": ends,
        "task_arithmetic": ends,
        "celeba_hq": {"root": write_celeba_hq(tmp_path / "faces", n=10, size=16), "size": 8, "verify": False},
        "lsun_church": {"root": write_lsun(tmp_path / "lsun", n_train=3, n_val=2), "size": 8, "verify": False},
        "attribute": {"groups": [["Black_Hair"], ["Blond_Hair"]]},
        "cifar10": {"root": write_cifar10(tmp_path / "cifar10", n_per_batch=2), "verify": False},
        "fashion_mnist": {"root": tiny_fashion_mnist(tmp_path / "fashion"), "verify": False},
        "fixed": {"thresholds": (0.5,), "weights": ((0.1, 0.2, 0.3, 0.4), (0, 0, 0.5, 0.5))},
        "image_folder": {"root": tmp_path, "size": 8},
        "product": {"slicers": parts, "counts": (3, 1)},
    }


@pytest.mark.parametrize("component", INSTALLED)
def test_installed_component_keeps_its_contract(component, configs, loaded, evaluation):
    name = component.name()
    if component.KIND == "experts" and name in loaded:
        checkpoint = loaded[name]()
        check_component(component, component.Config(**checkpoint.settings), image=checkpoint.image)
    else:
        settings = configs.get(name)
        check_component(component, settings and component.Config(**settings), evaluation=evaluation)


@pytest.mark.parametrize("component", [GaussianExpert, PlainTrunk, PosteriorGate])
def test_analytic_component_keeps_its_contract(component):
    check_component(component)


def test_every_kind_has_an_installed_component():
    assert {parameter.id.split("/")[0] for parameter in INSTALLED} == set(KINDS)


# broken components, each breaking one rule


class GoodGate(Gate):
    """Depends on z and λ."""

    class Config(Gate.Config):
        type: Literal["good"] = "good"

    def logits(self, z, log_snr):
        return z.mean((1, 2, 3))[:, None] * torch.arange(self.n_experts) + log_snr[:, None] / 10

    def forward(self, z, log_snr):
        return self.logits(z, log_snr).softmax(1)


class NegativeGate(GoodGate):
    """Rows sum to one, but not every weight is positive."""

    def forward(self, z, log_snr):
        logits = self.logits(z, log_snr)
        return logits - logits.mean(1, keepdim=True) + 1 / self.n_experts


class UnnormalisedGate(GoodGate):
    """Rows do not sum to one."""

    def forward(self, z, log_snr):
        return self.logits(z, log_snr).sigmoid()


class BatchNormalisingGate(GoodGate):
    """Looks at the other items of the batch."""

    def forward(self, z, log_snr):
        logits = self.logits(z, log_snr)
        return (logits - logits.mean(0)).softmax(1)


class PositionGate(GoodGate):
    """Gives the first item of a batch to the first expert."""

    def forward(self, z, log_snr):
        return torch.nn.functional.one_hot(torch.arange(len(z)) % self.n_experts, self.n_experts).to(z)


class GlobalNoiseGate(GoodGate):
    """Draws from torch's global generator."""

    def route(self, z, log_snr, trajectories=None):
        weights = (self.logits(z, log_snr) + 1e-5 * torch.randn(1)).softmax(1)
        weights = weights * (1 + 1e-6 * torch.randn(1))
        return Routing(weights, weights)


class NanGate(GoodGate):
    """Fails at high log-SNR."""

    def forward(self, z, log_snr):
        return (self.logits(z, log_snr) / (log_snr[:, None] < 11)).softmax(1)


class LooseConfigGate(GoodGate):
    """Drops unknown keys."""

    class Config(Gate.Config):
        model_config = ConfigDict(extra="ignore")
        type: Literal["loose"] = "loose"


class NeedsConfigGate(GoodGate):
    """Has a setting without a default."""

    class Config(Gate.Config):
        type: Literal["needs_config"] = "needs_config"
        temperature: float


class GoodExpert(Expert):
    """Linear in z."""

    class Config(Expert.Config):
        type: Literal["good"] = "good"

    def forward(self, z, log_snr):
        return 0.5 * z


class BatchNormExpert(GoodExpert):
    """Uses batch statistics."""

    def forward(self, z, log_snr):
        return (z - z.mean(0)) / 2


class HalfRangeExpert(GoodExpert):
    """Infinite where the noise is low, but declares no range."""

    def forward(self, z, log_snr):
        return z / (log_snr.view(-1, 1, 1, 1) < 14)


class SquareExpert(GoodExpert):
    """Cuts the image to a square."""

    def forward(self, z, log_snr):
        return z[..., : z.shape[-2]]


class DropoutExpert(GoodExpert):
    """Random in eval mode."""

    def forward(self, z, log_snr):
        return z * (1 + 1e-6 * torch.rand(1))


class InPlaceExpert(GoodExpert):
    """Overwrites its input."""

    def forward(self, z, log_snr):
        return z.mul_(0.5)


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


class Walk(Sampler):
    """DDIM."""

    class Config(Sampler.Config):
        type: Literal["walk"] = "walk"

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return ddim_trajectory(denoiser, noise, trajectories, self.grid(start), clip=self.config.clip)


class UncountedSampler(Walk):
    """Reports one call per step whatever the batch and the number of experts."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        for i, state in enumerate(super().trajectory(denoiser, noise, trajectories, start)):
            yield SamplerState(state.z, state.image, state.log_snr, i)


class UnfinishedSampler(Walk):
    """Stops at the cleanest noise level."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        yield from list(super().trajectory(denoiser, noise, trajectories, start))[:-1]


class UnclippedSampler(Walk):
    """Ignores the setting `clip`."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return ddim_trajectory(denoiser, noise, trajectories, self.grid(start), clip=False)


class StartlessSampler(Walk):
    """Ignores `start`."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return super().trajectory(denoiser, noise, trajectories)


class BlindSampler(Walk):
    """Never moves its state: the last image is one guess from pure noise."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        calls = 0
        for log_snr in self.grid(start):
            levels = torch.full((len(noise),), log_snr)
            denoised = denoiser(noise, levels, trajectories)
            image = image_from_velocity(denoised.velocity, noise, levels).clamp(-1, 1) * 0
            yield SamplerState(noise, image, log_snr, calls)
            calls += denoised.network_calls
        yield SamplerState(image, image, math.inf, calls)


class SharedNoiseSampler(Walk):
    """Adds noise that depends on the place in the batch."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        shift = 0.01 * torch.arange(len(noise)).view(-1, 1, 1, 1)
        return super().trajectory(denoiser, noise + shift, trajectories, start)


class GoodLoss(Loss):
    """Mean squared error."""

    class Config(Loss.Config):
        type: Literal["good"] = "good"

    def __call__(self, step):
        return (step.denoised.velocity - step.velocity).square().mean()


class UnitlessLoss(GoodLoss):
    """In a unit that nobody knows."""

    UNIT = "points"


class DetachedLoss(GoodLoss):
    """Nothing learns from it."""

    def __call__(self, step):
        return super().__call__(step).detach()


class LogarithmLoss(GoodLoss):
    """Infinite at a weight of zero."""

    def __call__(self, step):
        return -step.denoised.routing.probabilities.log().mean()


class PerItemLoss(GoodLoss):
    """Not averaged."""

    def __call__(self, step):
        return (step.denoised.velocity - step.velocity).square().flatten(1).mean(1)


class Dots(Dataset):
    """Four images of one pixel."""

    top: ClassVar[int] = 3
    extra: ClassVar[dict[str, Any]] = {}

    class Config(Dataset.Config):
        type: Literal["dots"] = "dots"

    @property
    def image(self):
        from moeframe.interfaces.component import ImageShape

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
    """Draws anew at each reading."""

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


@pytest.mark.parametrize("component", [GoodGate, GoodExpert, Line, HalfSlicer, Walk, GoodLoss, Dots, One])
def test_the_sound_original_of_each_broken_component_passes(component, evaluation):
    check_component(component, evaluation=evaluation)


@pytest.mark.parametrize(
    ("component", "rule"),
    [
        (NegativeGate, "weights are not negative"),
        (UnnormalisedGate, "rows of the weights sum to one"),
        (BatchNormalisingGate, "an item does not depend on the others in its batch"),
        (PositionGate, "the order of the batch does not matter"),
        (GlobalNoiseGate, "the same seed gives the same result"),
        (NanGate, "weights are finite"),
        (LooseConfigGate, "its config is strict and frozen"),
        (BatchNormExpert, "an item does not depend on the others in its batch"),
        (HalfRangeExpert, "the velocity is finite over log_snr_range"),
        (DropoutExpert, "the same seed gives the same result"),
        (InPlaceExpert, "the input is left as it was"),
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
        (UncountedSampler, "network_calls counts the"),
        (UnfinishedSampler, "the last state is the image, at λ = inf"),
        (UnclippedSampler, "with clip the image lies in [-1, 1], not at"),
        (StartlessSampler, "a walk begins at `start`"),
        (BlindSampler, "samples spread like the data"),
        (SharedNoiseSampler, "the order of the batch does not matter"),
        (UnitlessLoss, "UNIT is one of bits/dim, nats, dimensionless"),
        (DetachedLoss, "the value has a gradient"),
        (LogarithmLoss, "the value is finite"),
        (TooBrightDots, "levels lie in 0 .. levels-1"),
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


@pytest.mark.parametrize(("component", "rule"), [(SquareExpert, "shaped like z"), (PerItemLoss, "is a scalar")])
def test_a_wrong_shape_is_caught(component, rule):
    with pytest.raises(AssertionError, match=rule):
        check_component(component)


def test_a_component_with_settings_without_default_asks_for_a_config():
    with pytest.raises(AssertionError, match="NeedsConfigGate has settings without default; pass a config"):
        check_component(NeedsConfigGate)
    check_component(NeedsConfigGate, NeedsConfigGate.Config(temperature=1.0))
