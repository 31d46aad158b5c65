"""What of a run is trained: everything, the gate alone, or nothing."""

from itertools import chain, islice

import pytest
import torch
import yaml

from moeframe.assembly import assemble
from moeframe.errors import InputError, SpecError
from moeframe.interfaces.gate import Gate
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.training.trainer import Trainer

GATE_ONLY = ("training={trainable: gate, steps: 6, batch_size: 8, validation_images: 4}", "experts.0.dropout=0.2")


def errors_of_spec(path, *overrides):
    with pytest.raises(SpecError) as caught:
        load_spec(path, Registry.installed(), overrides)
    return {problem.dotted_path: problem.message for problem in caught.value.problems}


def gate_trainer(path, *overrides):
    registry = Registry.installed()
    return Trainer(assemble(load_spec(path, registry, (*GATE_ONLY, *overrides)), registry, 0))


def test_a_trainable_gate_leaves_every_expert_bit_identical(tiny_spec):
    run = gate_trainer(tiny_spec)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    logs = list(chain(run.warm_start(), run.train_jointly()))
    assert [log.phase for log in logs] == ["joint"] * 6
    for state in (run.model.state_dict(), run.averaged.state_dict()):
        assert all(torch.equal(state[name], before[name]) for name in before if name.startswith("experts"))
    assert not any(parameter.requires_grad for parameter in run.model.experts.parameters())
    assert not run.model.experts.training, "frozen experts answer without dropout"
    assert run.model.gate.training


def test_a_trainable_gate_learns(spec):
    registry = Registry.installed()
    overrides = ["gate={type: softmax, width: 4}", "training={trainable: gate, steps: 6, batch_size: 8}"]
    run = Trainer(assemble(load_spec(spec, registry, overrides), registry, 0))
    before = {name: tensor.clone() for name, tensor in run.model.gate.state_dict().items()}
    list(run.train_jointly())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.model.gate.state_dict().items())


def test_gate_only_training_cut_and_resumed_is_bit_equal(tiny_spec, tmp_path):
    whole = gate_trainer(tiny_spec)
    list(whole.train_jointly())
    first = gate_trainer(tiny_spec)
    list(islice(first.train_jointly(), 2))
    kept = checkpoint.save(tmp_path, first.snapshot())
    second = gate_trainer(tiny_spec)
    second.restore(checkpoint.load(kept))
    list(second.train_jointly())
    for one, other in ((whole.model, second.model), (whole.averaged, second.averaged)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_without_anything_to_train_the_state_is_saved_and_read_all_the_same(spec, tmp_path):
    registry = Registry.installed()
    run = Trainer(assemble(load_spec(spec, registry), registry, 0))
    run.restore(checkpoint.load(checkpoint.save(tmp_path, run.snapshot())))
    assert run.step == 0
    assert list(chain(run.warm_start(), run.train_jointly())) == []


def test_trainable_none_means_no_steps_where_none_are_given(tiny_text, tmp_path):
    data = {**yaml.safe_load(tiny_text), "training": {"trainable": "none"}}
    path = tmp_path / "none.yaml"
    path.write_text(yaml.safe_dump(data))
    spec = load_spec(path, Registry.installed())
    assert (spec.training.steps, spec.warm_start_steps) == (0, 0)
    path.write_text(yaml.safe_dump(spec.dump()))
    assert load_spec(path, Registry.installed()) == spec


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (
            ["training.trainable=none"],
            {"training.steps": "nothing is trainable, so 4 steps do nothing; set steps: 0, or trainable: gate or all"},
        ),
        (
            ["training.trainable=gate", "training.warm_start=0.5", "slicer={type: class_group, groups: [[0], [1]]}"],
            {
                "training.warm_start": "the warm start trains the experts, which trainable: gate freezes; "
                "set warm_start: 0"
            },
        ),
        (
            ["training.trainable=gate", "gate={type: uniform}"],
            {
                "training.trainable": "gate 'uniform' has no parameters to train; use a gate that learns, "
                "or trainable: none"
            },
        ),
        (
            ["training.trainable=gate", "gate=null", "experts.0.copies=1"],
            {"training.trainable": "the spec has no gate to train; add a section 'gate', or set all or none"},
        ),
        (["training.trainable=experts"], {"training.trainable": "must be 'all', 'gate' or 'none', not 'experts'"}),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_said_by_the_spec(tiny_spec, overrides, found):
    assert errors_of_spec(tiny_spec, *overrides) == found


def test_a_gate_that_does_not_say_that_it_cannot_learn_is_found_out_before_training(tiny_spec, monkeypatch):
    registry = Registry.installed()
    monkeypatch.setattr(registry.get(Gate, "uniform"), "LEARNS", True)
    overrides = ["training.trainable=gate", "gate={type: uniform}"]
    with pytest.raises(InputError, match="nothing to train: no trainable part has parameters; set training.steps: 0"):
        Trainer(assemble(load_spec(tiny_spec, registry, overrides), registry, 0))
