"""Contract checks for components of every kind: a broken rule raises AssertionError naming it and the component."""

import inspect
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from moeframe.diffusion import add_noise, velocity_of
from moeframe.errors import UnavailableError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe.interfaces.denoiser import Contribution, Denoised
from moeframe.interfaces.gate import Routing
from moeframe.interfaces.launcher import Launcher, Task
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.interfaces.metric import Evaluation, Metric
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.kinds import ALL_KINDS
from moeframe.randomness import Trajectories
from moeframe.testing.analytic import GaussianExpert, gaussian_mixture
from moeframe.testing.rules import (
    IMAGE,
    SLICED_IMAGE,
    STREAMS,
    Line,
    checked_config,
    close,
    expect,
    expect_each_item_on_its_own,
    trying,
)

UNITS = ("bits/dim", "nats", "dimensionless")


def check_component(
    component: type[Component],
    config: Any = None,
    *,
    image: ImageShape | None = None,
    n_experts: int | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Check the contract of the component's kind. `config` is needed where settings have no default.

    A component that is made for one shape of image or one number of experts needs `image` or `n_experts`; each is
    passed on to the contracts that take it. A metric is measured on `evaluation`; without one only its config is
    checked. A kind without a contract of its own is checked by the rules that all kinds share.

    Raises AssertionError, naming the component and the rule it breaks.
    """
    check = next(kind for kind in ALL_KINDS if kind.plural == component.KIND).load_contract()
    if check is None:
        checked_config(component, config)
        return
    given = {"image": image, "n_experts": n_experts, "evaluation": evaluation}
    taken = inspect.signature(check).parameters
    check(component, config, **{name: value for name, value in given.items() if value is not None and name in taken})


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


def check_slicer(
    component: type[Slicer],
    config: Any = None,
    *,
    image: ImageShape = SLICED_IMAGE,
    n_experts: int = 3,
) -> None:
    """A partition by a function of each example and of thresholds that the training split alone determines.

    There is a slice per expert. The examples are 60 images in 6 classes, with CelebA's hair colours and the names
    image-00 .. image-59.
    """
    config = checked_config(component, config)
    with trying(component, image, n_experts):
        _check_slicer(component, config, image, n_experts)


def _check_slicer(component: type[Slicer], config: Any, image: ImageShape, n_slices: int) -> None:
    brightest = torch.linspace(0.08, 1, 60).view(-1, 1, 1, 1) * (image.levels - 1)
    images = (STREAMS.uniform((60, *image.tensor_shape), "images") * brightest).to(
        torch.uint8 if image.levels <= 256 else torch.int32
    )
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
        expect(in_range, component, "levels are in 0 .. levels-1")
        expect(torch.equal(examples.images(indices.flip(0)), images.flip(0)), component, "images go by their index")
        expect(torch.equal(again.split(name).images(indices), images), component, "two readings are equal")
        labelled = len(examples.labels) == n and int(examples.labels.max()) < len(examples.label_names)
        expect(labelled, component, "every image has a label, and every label a name")


def check_loss(component: type[Loss], config: Any = None, *, image: ImageShape = IMAGE, n_experts: int = 3) -> None:
    """A finite scalar with finite gradients in a declared unit, also when the gate's weights are one-hot."""
    config = checked_config(component, config)
    with trying(component, image, n_experts):
        _check_loss(component, config, image, n_experts)


def _check_loss(component: type[Loss], config: Any, image: ImageShape, n_experts: int) -> None:
    expect(component.UNIT in UNITS, component, f"UNIT is one of {', '.join(UNITS)}")
    try:
        type(config).model_validate({**config.model_dump(), "weight": -1.0})
    except ValidationError:
        pass
    else:
        expect(False, component, "a negative weight is refused")
    shares = (0.5, *[0.5 / (n_experts - 1)] * (n_experts - 1)) if n_experts > 1 else (1.0,)
    loss = component(config, schedule=Line(Line.Config()), slice_shares=shares)
    for scale in (1.0, 1000.0):  # logits so far apart that the softmax underflows to a one-hot
        logits = (scale * STREAMS.normal((12, n_experts), "logits")).requires_grad_()
        velocities = STREAMS.normal((n_experts, 12, *image.tensor_shape), "velocities").requires_grad_()
        value = loss(_training_step(logits.softmax(1), velocities))
        expect(value.shape == (), component, "the value is a scalar")
        expect(bool(value.isfinite()), component, "the value is finite")
        expect(value.requires_grad, component, "the value has a gradient")
        grads = [g for g in torch.autograd.grad(value, (logits, velocities), allow_unused=True) if g is not None]
        expect(all(bool(g.isfinite().all()) for g in grads), component, "the gradient is finite")
        expect(scale > 1 or any(bool((g != 0).any()) for g in grads), component, "the gradient is not zero")


def _training_step(weights: Tensor, velocities: Tensor) -> TrainingStep:
    n, times = len(weights), STREAMS.low_discrepancy(len(weights), "times")
    schedule = Line(Line.Config())
    x, noise = (0.3 * STREAMS.normal((n, *velocities.shape[2:]), part) for part in ("x", "noise"))
    log_snr = schedule.log_snr(times)
    parts = tuple(Contribution(k, torch.arange(n), v) for k, v in enumerate(velocities))
    merged = torch.einsum("nk,knchw->nchw", weights, velocities)
    denoised = Denoised(merged, Routing(weights, weights), parts)
    z, velocity = add_noise(x, noise, log_snr), velocity_of(x, noise, log_snr)
    return TrainingStep(x, z, log_snr, schedule.rate(times), velocity, denoised, torch.arange(n) % velocities.shape[0])


def check_sampler(component: type[Sampler], config: Any = None, *, image: ImageShape = IMAGE) -> None:
    """Cleaner state by cleaner state to an image of the data's spread; calls counted, each trajectory on its own."""
    config = checked_config(component, config)
    with trying(component, image):
        _check_sampler(component, config, image)


def _check_sampler(component: type[Sampler], config: Any, image: ImageShape) -> None:
    sampler = component(config, schedule=Line(Line.Config()))
    spread = [GaussianExpert.Config(mean=m, std=0.1) for m in (-0.2, 0.2)]
    model, calls = gaussian_mixture(spread, (0.5, 0.5), image), []
    for expert in model.experts:
        expert.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))

    def walk(items: Tensor, start: float | None = None, model: MergedDenoiser = model) -> list[SamplerState]:
        trajectories = Trajectories(STREAMS, items)
        with torch.no_grad():
            noise = trajectories.normal(image.tensor_shape, "noise")
            return list(sampler.trajectory(model, noise, trajectories, start))

    states = walk(torch.arange(9))
    counted, log_snr = sum(calls), [state.log_snr for state in states]
    expect(states[-1].log_snr == math.inf, component, "the last state is the image, at λ = inf")
    expect(all(a < b for a, b in itertools.pairwise(log_snr)), component, "states get cleaner")
    expect(abs(log_snr[0] + 10) < 1e-6, component, "the first state is the noise, at the schedule's noisiest")
    expect(abs(walk(torch.arange(2), 1.5)[0].log_snr - 1.5) < 1e-6, component, "a trajectory starts at `start`")
    expect(states[-1].network_calls == counted, component, f"network_calls counts the {counted} expert evaluations")
    std = float(states[-1].z.std())
    expect(config.steps < 20 or abs(std / math.hypot(0.1, 0.2) - 1) < 0.2, component, "samples spread like the data")
    expect_each_item_on_its_own(component, lambda items: walk(items)[-1].z, 9)
    if config.clip:
        bright = gaussian_mixture([GaussianExpert.Config(mean=3.0)], (1.0,), image)
        largest = float(walk(torch.arange(2), model=bright)[-1].z.abs().max())
        expect(largest <= 1, component, f"with clip the image is in [-1, 1], not at {largest:g}")


def check_metric(component: type[Metric], config: Any = None, *, evaluation: Evaluation | None = None) -> None:
    """A finite value and how it was computed, or why it is unavailable; equal again if DETERMINISTIC."""
    metric = component(checked_config(component, config))
    if evaluation is None or metric.unavailable() is not None:
        return
    try:
        first = metric.measure(evaluation)
    except UnavailableError as error:
        expect(bool(str(error)), component, "UnavailableError says why, and what to do")
        return
    values = [first.value, *(first.interval or ()), *first.parts.values()]
    expect(all(math.isfinite(value) for value in values), component, "value, interval and parts are finite")
    expect(bool(first.unit) and first.n >= 1 and bool(first.how), component, "unit, sample size and how are stated")
    expect(json.loads(json.dumps(dict(first.how))) == first.how, component, "how holds JSON values only")
    if first.interval is not None:
        expect(first.interval[0] <= first.value <= first.interval[1], component, "the interval holds the value")
    if component.DETERMINISTIC:
        expect(metric.measure(evaluation) == first, component, "a second measurement is equal")


def check_launcher(component: type[Launcher], config: Any = None) -> None:
    """Every task is reported once with its exit status, its output is in its log, and a failure stops no other."""
    launcher = component(checked_config(component, config))
    with tempfile.TemporaryDirectory() as temporary:
        tasks = [
            Task(
                f"task {k}", (sys.executable, "-c", f"print({k}); raise SystemExit({k})"), Path(temporary) / f"{k}.log"
            )
            for k in range(3)
        ]
        ended = {one.task: one.exit_status for one in launcher.run(tasks)}
        expect(ended == dict(zip(tasks, range(3), strict=True)), component, "each task ends with its own exit status")
        logs = [task.log.read_text().strip() for task in tasks]
        expect(logs == ["0", "1", "2"], component, "what a task prints is in its log")
        expect(list(launcher.run([])) == [], component, "an empty list of tasks is accepted")
