"""The warm start that variants share: the same bits as their own, whichever run did it."""

import json
from itertools import chain, islice

import pytest
import torch

from moeframe.assembly import assemble
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent
from moeframe.runs.seed_training import SeedTraining
from moeframe.runs.shared_work import SharedWork
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.training import shared_warm_start
from moeframe.training.trainer import Trainer


def trainer_of(tiny_spec, *overrides):
    registry = Registry.installed()
    shared = ["training.warm_start=0.5", "slicer={type: color_variance}", *overrides]
    return Trainer(assemble(load_spec(tiny_spec, registry, shared), registry, 0))


def training_of(trainer, folder):
    return SeedTraining(trainer, RunFolder(folder), Silent())


def test_a_warm_start_taken_from_a_variant_with_another_gate_ends_with_the_same_bits(tiny_spec, tmp_path):
    shared, gate = SharedWork(tmp_path / "shared"), "gate={type: top_k, k: 1, width: 8}"
    first = training_of(trainer_of(tiny_spec, "gate={type: softmax, width: 4}", "training.log_every=1"), tmp_path / "a")
    shared.warm_start(first)
    whole, second = trainer_of(tiny_spec, gate), training_of(trainer_of(tiny_spec, gate), tmp_path / "b")
    list(chain(whole.warm_start(), whole.train_jointly()))
    second.warm_start = None  # would fail if it were called
    shared.warm_start(second)
    assert second.trainer.step == 2
    logged = [[json.loads(line) for line in one.events.read_text().splitlines()] for one in (first, second)]
    trained = [[event for event in events if event["kind"] == "train"] for events in logged]
    assert trained[0] == trained[1] != []
    validated = [[event for event in events if event["kind"] == "validation"] for events in logged]
    assert validated[0] != validated[1], "that depends on the gate"
    list(second.trainer.train_jointly())
    for one, other in ((whole.model, second.trainer.model), (whole.averaged, second.trainer.averaged)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_a_run_interrupted_within_its_warm_start_leaves_it_for_the_others(tiny_spec, tmp_path):
    shared, trainer = SharedWork(tmp_path / "shared"), trainer_of(tiny_spec)
    next(trainer.warm_start())
    checkpoint.save(RunFolder(tmp_path / "run").checkpoints(0), trainer.snapshot())
    resumed = training_of(trainer_of(tiny_spec), tmp_path / "run")
    resumed.resume()
    assert resumed.trainer.step == 1
    shared.warm_start(resumed)
    other = training_of(trainer_of(tiny_spec), tmp_path / "other")
    other.warm_start = None
    shared.warm_start(other)
    assert other.trainer.step == 2


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("gate={type: uniform}", True),
        ("objective=[{type: nll}, {type: entropy}]", True),
        ("sampler.steps=9", True),
        ("training.log_every=3", True),
        ("training.learning_rate=0.1", False),
        ("objective=[{type: nll, weighting: simple}]", False),
        ("experts.0.channels=8", False),
        ("training.steps=6", False),
    ],
)
def test_a_warm_start_is_shared_by_runs_that_differ_in_nothing_it_depends_on(tiny_spec, override, same):
    keys = [shared_warm_start.key_of(trainer_of(tiny_spec, *changes).assembly) for changes in ((), (override,))]
    assert (keys[0] == keys[1]) is same


def test_the_gate_of_the_one_who_takes_over_is_its_own(tiny_spec, tmp_path):
    first = trainer_of(tiny_spec)
    list(islice(first.warm_start(), 2))
    second = trainer_of(tiny_spec, "gate={type: softmax, width: 9}")
    before = {name: tensor.clone() for name, tensor in second.model.gate.state_dict().items()}
    second.load_warm_start(first.warm_start_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.model.gate.state_dict().items())
    assert torch.equal(next(second.model.experts.parameters()), next(first.model.experts.parameters()))
