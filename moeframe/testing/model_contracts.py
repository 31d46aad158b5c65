"""Contract checks for the parts of a model (gates, experts, trunks) and for exporters."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.testing.analytic import GaussianExpert, PlainTrunk, gaussian_mixture
from moeframe.testing.rules import (
    IMAGE,
    SHAPES,
    STREAMS,
    Line,
    checked_config,
    close,
    expect,
    expect_each_item_on_its_own,
    stirred,
    trying,
)

Predict = Callable[[Tensor, Tensor], Tensor]


def check_gate(
    component: type[Gate], config: Any = None, *, image: ImageShape | None = None, n_experts: int = 4
) -> None:
    """Simplex rows from (z, λ) alone, each item on its own, repeatable; for several shapes of image, or for `image`."""
    config = checked_config(component, config)
    for shape in SHAPES if image is None else (image,):
        with trying(component, shape, n_experts):
            _check_gate(component, config, shape, n_experts)


def _check_gate(component: type[Gate], config: Any, image: ImageShape, n_experts: int) -> None:
    gate = stirred(partial(component, config, image=image, n_experts=n_experts))
    expect(component.LEARNS or not list(gate.parameters()), component, "LEARNS is True where it has parameters")
    z, log_snr = STREAMS.normal((9, *image.tensor_shape), "z"), torch.linspace(-12, 12, 9)
    for training in (True, False):
        routing = gate.train(training).route(z.clone(), log_snr.clone(), Trajectories.numbered(STREAMS, 0, 9))
        for what, rows in (("weights", routing.weights), ("probabilities", routing.probabilities)):
            expect(rows.shape == (9, n_experts), component, f"{what} have shape (batch, experts)")
            expect(bool(rows.isfinite().all()), component, f"{what} are finite")
            expect(bool((rows >= 0).all()), component, f"{what} are not negative")
            if gate.sums_to_one or what == "probabilities":
                expect(close(rows.sum(1), torch.ones(9)), component, f"rows of the {what} sum to one")

    def weights(items: Tensor, gate: Gate = gate, z: Tensor = z, log_snr: Tensor = log_snr) -> Tensor:
        return gate.route(z[items], log_snr[items], Trajectories(STREAMS, items)).weights

    expect_each_item_on_its_own(component, weights, 9)


def check_expert(component: type[Expert], config: Any = None, *, image: ImageShape | None = None) -> None:
    """A finite velocity of the input's shape and type over all of log_snr_range, each item on its own.

    For two shapes of image, or for `image`. An adapter is checked on a small trunk.
    """
    config = checked_config(component, config)
    for shape in SHAPES[:2] if image is None else (image,):
        with trying(component, shape):
            _check_expert(component, config, shape)


def _check_expert(component: type[Expert], config: Any, image: ImageShape) -> None:
    expert, predict = _expert_that_predicts(component, config, image)
    low, high = expert.log_snr_range
    expect(low < high, component, "log_snr_range is (lowest, highest)")
    z, log_snr = STREAMS.normal((9, *image.tensor_shape), "z"), torch.linspace(max(low, -15), min(high, 15), 9)
    given = z.clone()
    velocity = predict(given, log_snr)
    expect(torch.equal(given, z), component, "the input is left as it was")
    expect(velocity.shape == z.shape and velocity.dtype == z.dtype, component, "the velocity is shaped like z")
    expect(bool(velocity.isfinite().all()), component, "the velocity is finite over log_snr_range")

    def velocities(items: Tensor, predict: Predict = predict, z: Tensor = z, log_snr: Tensor = log_snr) -> Tensor:
        return predict(z[items], log_snr[items])

    expect_each_item_on_its_own(component, velocities, 9)


def _expert_that_predicts(component: type[Expert], config: Any, image: ImageShape) -> tuple[Expert, Predict]:
    if not issubclass(component, AdapterExpert):
        expert = stirred(partial(component, config, image=image)).eval()
        return expert, expert
    trunk = stirred(partial(PlainTrunk, PlainTrunk.Config(), image=image))
    adapter = stirred(partial(component, config, image=image, trunk=trunk))
    model = MergedDenoiser([adapter], trunk=trunk).eval()
    return adapter, lambda z, log_snr: model(z, log_snr).velocity


def check_trunk(component: type[Trunk], config: Any = None, *, image: ImageShape | None = None) -> None:
    """Features of each item on its own, later layers whose every weight and block an adapter can change.

    For two shapes of image, or for `image`.
    """
    config = checked_config(component, config)
    for shape in SHAPES[:2] if image is None else (image,):
        with trying(component, shape):
            _check_trunk(component, config, shape)


def _check_trunk(component: type[Trunk], config: Any, image: ImageShape) -> None:
    trunk = stirred(partial(component, config, image=image)).eval()
    z, log_snr = STREAMS.normal((9, *image.tensor_shape), "z"), torch.linspace(-12, 12, 9)
    features = trunk(z, log_snr)
    summary = features.summary
    expect(summary.shape == (9, trunk.summary_width), component, "the summary is (batch, summary_width)")
    in_batches = all(len(tensor) == 9 for tensor in features.tensors)
    expect(in_batches, component, "the batch comes first in every feature")
    expect(bool(summary.isfinite().all()), component, "the summary is finite")
    plain, recorder = (_Recorder(_Recorder.Config(), image=image, trunk=trunk) for _ in range(2))
    for which in (0, 1):
        expect_each_item_on_its_own(component, partial(_on_trunk, which, trunk, plain, z, log_snr), 9)
    velocity = trunk.finish(features, recorder, z, log_snr)
    expect(velocity.shape == z.shape and velocity.dtype == z.dtype, component, "the velocity is shaped like z")
    expect(bool(velocity.isfinite().all()), component, "the velocity is finite")
    expect(sorted(recorder.weights) == sorted(trunk.adaptable), component, "each adaptable weight is requested once")
    expected = list(enumerate(trunk.block_widths))
    expect(recorder.blocks == expected, component, "after_block is called in the order and widths of block_widths")
    shares = close(trunk.finish(features.at(torch.tensor([4])), plain, z[4:5], log_snr[4:5]), velocity[4:5])
    expect(shares, component, "features of some items serve those items")


def _on_trunk(which: int, trunk: Trunk, adapter: AdapterExpert, z: Tensor, log_snr: Tensor, items: Tensor) -> Tensor:
    """Velocity (0) or summary (1) of some items."""
    features = trunk(z[items], log_snr[items])
    return features.summary if which else trunk.finish(features, adapter, z[items], log_snr[items])


class _Recorder(AdapterExpert):
    """Changes nothing and records the calls."""

    class Config(Expert.Config):
        type: Literal["recorder"] = "recorder"

    def __init__(self, config: Config, *, image: ImageShape, trunk: Trunk):
        super().__init__(config, image=image, trunk=trunk)
        self.weights: list[str] = []
        self.blocks: list[tuple[int, int]] = []

    def changed(self, name: str, weight: Tensor) -> Tensor:
        self.weights.append(name)
        return weight

    def after_block(self, block: int, maps: Tensor) -> Tensor:
        self.blocks.append((block, maps.shape[1]))
        return maps


def check_exporter(component: type[Exporter], config: Any = None, *, image: ImageShape = IMAGE) -> None:
    """A folder with a README.md, the model left as it was, and how to load the folder."""
    config = checked_config(component, config)
    with trying(component, image):
        _check_exporter(component, config, image)


def _check_exporter(component: type[Exporter], config: Any, image: ImageShape) -> None:
    exporter = component(config)
    schedule = Line(Line.Config())
    model = gaussian_mixture([GaussianExpert.Config(mean=m) for m in (-0.2, 0.2)], (0.5, 0.5), image)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = TrainedModel(
        name="checked",
        denoiser=model,
        experts=tuple(expert for expert in model.experts if isinstance(expert, Expert)),
        schedule=schedule,
        sampler=_Steps(_Steps.Config(), schedule=schedule),
        image=image,
        seed=0,
        spec={"gate": {"type": "gaussian_posterior"}},
        results={},
        card={},
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "merged"
        folder.mkdir()
        how = exporter.export_merged(trained, folder)
        expect(bool(how.strip()), component, "it says how to load what it wrote")
        expect(str(folder) in how, component, "what it says names the folder")
        expect((folder / "README.md").is_file(), component, "a model card, README.md, is written")
    unchanged = all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expect(unchanged, component, "the model stays as it is")


class _Steps(Sampler):
    """Settings of a sampler for checks of kinds that name one."""

    class Config(Sampler.Config):
        type: Literal["steps"] = "steps"

    def trajectory(self, *_: Any) -> Iterator[SamplerState]:
        yield from ()
