"""Contract checks for components of every kind: a broken rule raises AssertionError naming it and the component."""

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from moeframe.diffusion import add_noise, velocity_of
from moeframe.errors import UnavailableError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe.interfaces.denoiser import Contribution, Denoised
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe.interfaces.gate import Gate, Routing
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.interfaces.metric import Evaluation, Metric
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.shapes import LogSnr, Times
from moeframe.testing.analytic import GaussianExpert, PlainTrunk, gaussian_mixture
from moeframe.testing.rules import STREAMS, checked_config, close, expect, expect_each_item_on_its_own, stirred

IMAGE = ImageShape(channels=1, height=8, width=8, levels=256)
SHAPES = (IMAGE, ImageShape(channels=3, height=7, width=9, levels=17), ImageShape(3, 16, 16, 256))
Predict = Callable[[Tensor, Tensor], Tensor]
UNITS = ("bits/dim", "nats", "dimensionless")


class _Line(NoiseSchedule):
    """A plain schedule for checks of kinds that need one."""

    class Config(NoiseSchedule.Config):
        type: Literal["line"] = "line"

    def log_snr(self, times: Times) -> LogSnr:
        return 10 - 20 * times


def check_component(
    component: type[Component],
    config: Any = None,
    *,
    evaluation: Evaluation | None = None,
    image: ImageShape | None = None,
) -> None:
    """Check the contract of the component's kind. `config` is needed where settings have no default.

    A metric is measured on `evaluation`; without one only its config is checked. An expert that is made for one shape
    of image, because it loads a checkpoint, is checked on `image`.
    """
    if issubclass(component, Metric):
        check_metric(component, config, evaluation)
    elif issubclass(component, Expert) and image is not None:
        check_expert(component, config, [image])
    else:
        _CHECKS[component.KIND](component, config)


def check_gate(component: type[Gate], config: Any = None, n_experts: int = 4) -> None:
    """Simplex rows from (z, λ) alone, each item on its own, repeatable, for any image shape."""
    config = checked_config(component, config)
    for image in SHAPES:
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


def check_expert(component: type[Expert], config: Any = None, shapes: Sequence[ImageShape] = SHAPES[:2]) -> None:
    """A finite velocity of the input's shape and type over the whole declared range, each item on its own.

    An adapter is checked on a small trunk.
    """
    config = checked_config(component, config)
    for image in shapes:
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


def check_trunk(component: type[Trunk], config: Any = None, shapes: Sequence[ImageShape] = SHAPES[:2]) -> None:
    """Features of each item on its own, later layers whose every weight and block an adapter can change."""
    config = checked_config(component, config)
    for image in shapes:
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
        expect(
            sorted(recorder.weights) == sorted(trunk.adaptable), component, "each adaptable weight is asked for once"
        )
        asked = list(enumerate(trunk.block_widths))
        expect(recorder.blocks == asked, component, "after_block is called in the order and widths of block_widths")
        shares = close(trunk.finish(features.at(torch.tensor([4])), plain, z[4:5], log_snr[4:5]), velocity[4:5])
        expect(shares, component, "features of some items serve those items")


def _on_trunk(which: int, trunk: Trunk, adapter: AdapterExpert, z: Tensor, log_snr: Tensor, items: Tensor) -> Tensor:
    """Velocity (0) or summary (1) of some items."""
    features = trunk(z[items], log_snr[items])
    return features.summary if which else trunk.finish(features, adapter, z[items], log_snr[items])


class _Recorder(AdapterExpert):
    """Changes nothing and notes what it is asked."""

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


def check_schedule(component: type[NoiseSchedule], config: Any = None) -> None:
    """Strictly decreasing from t = 0, with its true rate and inverse, in float32 as in float64."""
    schedule = component(checked_config(component, config))
    times = torch.linspace(0, 1, 1001, dtype=torch.float64)
    log_snr = schedule.log_snr(times)
    expect(log_snr.shape == times.shape and log_snr.dtype == times.dtype, component, "λ(t) is shaped like t")
    expect(bool(log_snr.isfinite().all()), component, "λ(t) is finite on [0, 1]")
    expect(bool((log_snr.diff() < 0).all()), component, "λ(t) is strictly decreasing")
    expect(schedule.log_snr_max == float(log_snr[0]), component, "t = 0 is the cleanest")
    expect(schedule.log_snr_min == float(log_snr[-1]), component, "t = 1 is the noisiest")
    single = schedule.log_snr(times.float())
    expect(single.dtype == torch.float32 and close(single.double(), log_snr), component, "float32 agrees with float64")
    # off the knots of a piecewise schedule
    inner, h = 0.999 * torch.sqrt(torch.linspace(1e-3, 1, 50, dtype=torch.float64)), 1e-8
    slope = (schedule.log_snr(inner - h) - schedule.log_snr(inner + h)) / (2 * h)
    error = (schedule.rate(inner) / slope - 1).abs().max()
    expect(float(error) < 1e-4, component, f"rate is -dλ/dt (relative error {float(error):.1e})")
    expect(bool((schedule.rate(times) > 0).all()), component, "rate is positive on [0, 1], ends included")
    expect(close(schedule.time_of(log_snr[::50]), times[::50]), component, "time_of is the inverse of log_snr")


def check_slicer(component: type[Slicer], config: Any = None, n_slices: int = 3) -> None:
    """A partition by a function of each example and of thresholds that the training split alone determines.

    The examples are 60 colour images in 6 classes, with CelebA's hair colours and the names image-00 .. image-59.
    """
    config = checked_config(component, config)
    images = (STREAMS.uniform((60, 3, 6, 6), "images") * torch.linspace(20, 255, 60).view(-1, 1, 1, 1)).byte()
    labels, label_names = torch.arange(60) * 7 % 6, tuple("abcdef")
    # some images have two hair colours, some none
    hair = {"Black_Hair": labels % 2 == 1, "Blond_Hair": labels % 3 == 0, "Brown_Hair": labels == 3}
    attributes = {name: present.float() for name, present in {**hair, "Gray_Hair": labels == 4}.items()}

    def examples(items: Tensor) -> InMemoryExamples:
        own = {name: values[items] for name, values in attributes.items()}
        names = [f"image-{i:02d}" for i in items.tolist()]
        return InMemoryExamples(images[items], labels[items], label_names, own, names)

    def fitted() -> Slicer:
        slicer = component(config, n_slices=n_slices, streams=STREAMS)
        slicer.fit(examples(train))
        return slicer

    train, test = torch.arange(0, 60, 2), torch.arange(1, 60, 2)
    slicer = fitted()
    ids = slicer.assign(examples(train))
    expect(ids.shape == (30,) and not ids.is_floating_point(), component, "one integer per example")
    expect(int(ids.min()) >= 0 and int(ids.max()) < n_slices, component, "slices are numbered 0 .. n_slices-1")
    order = STREAMS.permutation(30, "order")
    expect(torch.equal(slicer.assign(examples(train[order])), ids[order]), component, "order does not matter")
    alone = torch.cat([slicer.assign(examples(train[i : i + 1])) for i in range(30)])
    expect(torch.equal(alone, ids), component, "an example's slice does not depend on the others")
    other = component(config, n_slices=n_slices, streams=STREAMS)
    other.restore(json.loads(json.dumps(slicer.state())))
    before, of_test = slicer.state(), slicer.assign(examples(test))
    expect(torch.equal(other.assign(examples(test)), of_test), component, "its state survives JSON")
    expect(slicer.state() == before == fitted().state(), component, "thresholds depend on the training split alone")
    expect(torch.equal(slicer.assign(examples(train)), ids), component, "assigning the test split changes nothing")


def check_dataset(component: type[Dataset], config: Any = None) -> None:
    """Integer images in range, the same under any index order, with a card of JSON values. Needs the data."""
    config = checked_config(component, config)
    dataset, again = component(config), component(config)
    expect(dataset.missing() is None, component, f"its data is here ({dataset.missing()})")
    card = dataset.card()
    expect(json.loads(json.dumps(card)) == card, component, "the card holds JSON values only")
    lacking = {"source", "licence", "splits", "split_rule", "levels", "transformations", "files"} - card.keys()
    expect(not lacking, component, f"the card states {', '.join(sorted(lacking))}")
    splits: tuple[Split, ...] = ("train", "test")
    for name in splits:
        examples = dataset.split(name)
        n = len(examples)
        expect(n > 0, component, f"the {name} split is not empty")
        indices = STREAMS.permutation(n, "indices")[:16]
        images = examples.images(indices)
        expect(images.shape[1:] == dataset.image.tensor_shape, component, "images have the declared shape")
        expect(not images.is_floating_point(), component, "images are integers")
        in_range = int(images.min()) >= 0 and int(images.max()) < dataset.image.levels
        expect(in_range, component, "levels lie in 0 .. levels-1")
        expect(torch.equal(examples.images(indices.flip(0)), images.flip(0)), component, "images go by their index")
        expect(torch.equal(again.split(name).images(indices), images), component, "two readings are equal")
        labelled = len(examples.labels) == n and int(examples.labels.max()) < len(examples.label_names)
        expect(labelled, component, "every image has a label, and every label a name")


def check_loss(component: type[Loss], config: Any = None) -> None:
    """A finite scalar with finite gradients in a declared unit, also when the gate's weights are one-hot."""
    config = checked_config(component, config)
    expect(component.UNIT in UNITS, component, f"UNIT is one of {', '.join(UNITS)}")
    try:
        type(config).model_validate({**config.model_dump(), "weight": -1.0})
    except ValidationError:
        pass
    else:
        expect(False, component, "a negative weight is refused")
    loss = component(config, schedule=_Line(_Line.Config()), slice_shares=(0.5, 0.25, 0.25))
    for scale in (1.0, 1000.0):  # logits so far apart that the softmax underflows to a one-hot
        logits = (scale * STREAMS.normal((12, 3), "logits")).requires_grad_()
        velocities = STREAMS.normal((3, 12, *IMAGE.tensor_shape), "velocities").requires_grad_()
        value = loss(_training_step(logits.softmax(1), velocities))
        expect(value.shape == (), component, "the value is a scalar")
        expect(bool(value.isfinite()), component, "the value is finite")
        expect(value.requires_grad, component, "the value has a gradient")
        grads = [g for g in torch.autograd.grad(value, (logits, velocities), allow_unused=True) if g is not None]
        expect(all(bool(g.isfinite().all()) for g in grads), component, "the gradient is finite")
        expect(scale > 1 or any(bool((g != 0).any()) for g in grads), component, "the gradient is not zero")


def _training_step(weights: Tensor, velocities: Tensor) -> TrainingStep:
    n, times = len(weights), STREAMS.low_discrepancy(len(weights), "times")
    schedule = _Line(_Line.Config())
    x, noise = (0.3 * STREAMS.normal((n, *IMAGE.tensor_shape), part) for part in ("x", "noise"))
    log_snr = schedule.log_snr(times)
    parts = tuple(Contribution(k, torch.arange(n), v) for k, v in enumerate(velocities))
    merged = torch.einsum("nk,knchw->nchw", weights, velocities)
    denoised = Denoised(merged, Routing(weights, weights), parts)
    z, velocity = add_noise(x, noise, log_snr), velocity_of(x, noise, log_snr)
    return TrainingStep(x, z, log_snr, schedule.rate(times), velocity, denoised, torch.arange(n) % velocities.shape[0])


def check_sampler(component: type[Sampler], config: Any = None) -> None:
    """Cleaner state by cleaner state to an image of the data's spread; calls counted, each trajectory on its own."""
    config = checked_config(component, config)
    sampler = component(config, schedule=_Line(_Line.Config()))
    spread = [GaussianExpert.Config(mean=m, std=0.1) for m in (-0.2, 0.2)]
    model, calls = gaussian_mixture(spread, (0.5, 0.5), IMAGE), []
    for expert in model.experts:
        expert.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))

    def walk(items: Tensor, start: float | None = None, model: MergedDenoiser = model) -> list[SamplerState]:
        trajectories = Trajectories(STREAMS, items)
        with torch.no_grad():
            noise = trajectories.normal(IMAGE.tensor_shape, "noise")
            return list(sampler.trajectory(model, noise, trajectories, start))

    states = walk(torch.arange(9))
    counted, log_snr = sum(calls), [state.log_snr for state in states]
    expect(states[-1].log_snr == math.inf, component, "the last state is the image, at λ = inf")
    expect(all(a < b for a, b in itertools.pairwise(log_snr)), component, "states get cleaner")
    expect(abs(log_snr[0] + 10) < 1e-6, component, "the first state is the noise, at the schedule's noisiest")
    expect(abs(walk(torch.arange(2), 1.5)[0].log_snr - 1.5) < 1e-6, component, "a walk begins at `start`")
    expect(states[-1].network_calls == counted, component, f"network_calls counts the {counted} expert evaluations")
    std = float(states[-1].z.std())
    expect(config.steps < 20 or abs(std / math.hypot(0.1, 0.2) - 1) < 0.2, component, "samples spread like the data")
    expect_each_item_on_its_own(component, lambda items: walk(items)[-1].z, 9)
    if config.clip:
        bright = gaussian_mixture([GaussianExpert.Config(mean=3.0)], (1.0,), IMAGE)
        largest = float(walk(torch.arange(2), model=bright)[-1].z.abs().max())
        expect(largest <= 1, component, f"with clip the image lies in [-1, 1], not at {largest:g}")


def check_metric(component: type[Metric], config: Any = None, evaluation: Evaluation | None = None) -> None:
    """A finite figure that says how it was computed, or why it cannot be; the same again if DETERMINISTIC."""
    metric = component(checked_config(component, config))
    if evaluation is None or metric.unavailable() is not None:
        return
    try:
        first = metric.measure(evaluation)
    except UnavailableError as error:
        expect(bool(str(error)), component, "UnavailableError says why, and what to do")
        return
    figures = [first.value, *(first.interval or ()), *first.parts.values()]
    expect(all(math.isfinite(figure) for figure in figures), component, "value, interval and parts are finite")
    expect(bool(first.unit) and first.n >= 1 and bool(first.how), component, "unit, sample size and how are stated")
    expect(json.loads(json.dumps(dict(first.how))) == first.how, component, "how holds JSON values only")
    if first.interval is not None:
        expect(first.interval[0] <= first.value <= first.interval[1], component, "the interval holds the value")
    if component.DETERMINISTIC:
        expect(metric.measure(evaluation) == first, component, "a second measurement is equal")


def check_exporter(component: type[Exporter], config: Any = None) -> None:
    """A folder with a README.md, into which nothing of the model is changed, and how to load it."""
    exporter = component(checked_config(component, config))
    schedule = _Line(_Line.Config())
    model = gaussian_mixture([GaussianExpert.Config(mean=m) for m in (-0.2, 0.2)], (0.5, 0.5), IMAGE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = TrainedModel(
        name="checked",
        denoiser=model,
        experts=tuple(expert for expert in model.experts if isinstance(expert, Expert)),
        schedule=schedule,
        sampler=_Steps(_Steps.Config(), schedule=schedule),
        image=IMAGE,
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


_CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "datasets": check_dataset,
    "experts": check_expert,
    "exporters": check_exporter,
    "gates": check_gate,
    "losses": check_loss,
    "samplers": check_sampler,
    "schedules": check_schedule,
    "slicers": check_slicer,
    "trunks": check_trunk,
}
