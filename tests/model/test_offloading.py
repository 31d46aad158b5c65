"""Experts kept off the device: which one is moved, and when."""

import pytest
import torch
from torch import nn

import moeframe
from moeframe.errors import SpecError
from moeframe.model.ema import MovingAverage
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.offloading import HOME, move_exclusively
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.testing import GaussianExpert
from moeframe_builtin.gates.switch import SwitchGate

GPU = torch.device("meta")  # a device that every machine has


def on_device(experts) -> list[int]:
    return [k for k, expert in enumerate(experts) if expert.weight.device == GPU]


def test_one_expert_at_a_time_is_on_the_device_and_the_last_one_stays():
    experts = [nn.Linear(2, 2) for _ in range(3)]
    moves = []
    for k, expert in enumerate(experts):

        def moved(device, k=k, own=expert.to, expert=expert):
            if expert.weight.device != device:
                moves.append((k, str(device)))
            if device == GPU:
                own(device)
            else:  # what is on meta has no values to bring home
                expert.to_empty(device=device)

        expert.to = moved
    move_exclusively(experts[1], experts, GPU)
    assert on_device(experts) == [1]
    move_exclusively(experts[1], experts, GPU)
    assert moves == [(1, "meta")], "it was there already"
    move_exclusively(experts[0], experts, GPU)
    assert on_device(experts) == [0]
    assert moves[1:] == [(1, "cpu"), (0, "meta")], "the other makes room first"
    move_exclusively(experts[2], experts, HOME)
    assert on_device(experts) == [0], "nothing is sent home from its home"


def test_a_mixture_brings_an_expert_before_it_asks_it_and_only_that_one(monkeypatch):
    image = moeframe.ImageShape(1, 2, 2, 8)
    gate = SwitchGate(SwitchGate.Config(eta=0.0), image=image, n_experts=2)
    model = MergedDenoiser([GaussianExpert(GaussianExpert.Config(), image=image) for _ in range(2)], gate)
    brought = []
    monkeypatch.setattr(
        "moeframe.model.mixture.move_exclusively", lambda one, experts, device: brought.append((one, len(experts)))
    )
    z = torch.randn(3, 1, 2, 2)
    model(z, torch.full((3,), -2.0))
    assert brought == [], "not unless it is told to"
    model.place(torch.device("cpu"), offload=True)
    for log_snr in (-2.0, -1.0, 3.0):
        model(z, torch.full((3,), log_snr))
    model.alone(1)(z, torch.full((3,), 1.0))
    first, second = model.experts
    assert brought == [(first, 2), (first, 2), (second, 2), (second, 2)], "alone it makes the other leave all the same"


def test_frozen_weights_are_not_averaged_so_that_they_may_wait_elsewhere():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    ema = MovingAverage(model, 0.9)
    model[0].to(GPU)
    with torch.no_grad():
        model[1].weight.add_(1)
    ema.update(0)
    assert torch.equal(ema.model[1].weight, model[1].weight)
    assert ema.model[0].weight.device == HOME


@pytest.mark.slow
def test_offloading_changes_no_result(tiny_spec, tmp_path):
    kept = ["training={trainable: none}", "gate={type: uniform}", "metrics=[{type: bits_per_dim, repeats: 1}]"]
    plain = moeframe.merge(tiny_spec, overrides=kept, out=tmp_path / "plain")
    offloaded = moeframe.merge(tiny_spec, overrides=[*kept, "evaluation.offload=true"], out=tmp_path / "offloaded")
    assert plain == offloaded, "where it waits is a setting of the machine, not of the run"
    assert moeframe.load(tmp_path / "offloaded").sample(2).shape == (2, 1, 4, 4)


def test_experts_that_are_trained_cannot_be_offloaded(tiny_spec):
    with pytest.raises(SpecError, match=r"evaluation\.offload: experts that are trained stay on the device"):
        load_spec(tiny_spec, Registry.installed(), ["evaluation.offload=true"])
