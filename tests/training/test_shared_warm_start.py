"""The warm start that variants share: the same bits as their own, whoever did it."""

from itertools import chain, islice

import pytest
import torch

from moeframe.assembly import assemble
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent
from moeframe.runs.pipeline import train
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.training import shared_warm_start
from moeframe.training.trainer import Trainer


def trainer_of(tiny_spec, *overrides):
    registry = Registry.installed()
    shared = ["training.warm_start=0.5", "slicer={type: color_variance}", *overrides]
    return Trainer(assemble(load_spec(tiny_spec, registry, shared), registry, 0))


def test_phase_one_taken_from_a_variant_with_another_gate_ends_with_the_same_bits(tiny_spec, tmp_path):
    first = trainer_of(tiny_spec, "gate={type: softmax, width: 4}")
    with shared_warm_start.shared(first, tmp_path) as taken:
        assert not taken
        list(first.warm_start())
        events = tmp_path / "events.jsonl"
        lines = [
            b'{"kind": "train", "step": 1}\n',
            b'{"kind": "validation", "step": 1}\n',
            b'{"kind": "train", "step": 2}\n',
        ]
        events.write_bytes(b"".join(lines))
        shared_warm_start.keep(first, tmp_path, events)
    gate = "gate={type: top_k, k: 1, width: 8}"
    whole, second = trainer_of(tiny_spec, gate), trainer_of(tiny_spec, gate)
    list(chain(whole.warm_start(), whole.train_jointly()))
    with shared_warm_start.shared(second, tmp_path) as taken:
        assert taken
        assert second.step == 2
        shared_warm_start.take_events(second, tmp_path, tmp_path / "second/events.jsonl")
        assert (tmp_path / "second/events.jsonl").read_bytes() == lines[0] + lines[2]
    list(second.train_jointly())
    for one, other in ((whole.model, second.model), (whole.averaged, second.averaged)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_a_run_interrupted_within_phase_one_leaves_it_for_the_others(tiny_spec, tmp_path):
    trainer = trainer_of(tiny_spec)
    next(trainer.warm_start())
    folder = RunFolder(tmp_path / "run")
    checkpoint.save(folder.checkpoints(0), trainer.snapshot())
    train(trainer_of(tiny_spec), folder, 0, Silent(), tmp_path / "phase_one")
    with shared_warm_start.shared(trainer_of(tiny_spec), tmp_path / "phase_one") as taken:
        assert taken


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
def test_phase_one_is_shared_by_runs_that_differ_in_nothing_it_depends_on(tiny_spec, override, same):
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
