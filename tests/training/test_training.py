"""Training: what each phase touches, that it can be cut anywhere, and what happens when numbers go wrong."""

import math
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from moeframe.assembly import assemble
from moeframe.errors import CheckpointError, DataError, NonFiniteError
from moeframe.progress import Silent
from moeframe.runs.seed_training import SeedTraining
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.training.trainer import Trainer
from moeframe.training.validation import measure_validation

SPEC = Path(__file__).parents[2] / "specs/digits.yaml"
SMALL = (
    "experts.0.channels=4",
    "experts.0.dropout=0.1",
    "training.steps=8",
    "training.warm_start=0.5",
    "training.batch_size=8",
    "training.validation_images=8",
    "training.validation_every=4",
    "training.checkpoint_every=3",
    "training.log_every=1",
)


def trainer(registry, *overrides, seed=0):
    return Trainer(assemble(load_spec(SPEC, registry, (*SMALL, *overrides)), registry, seed))


def joint_facts(run):
    """One joint step, before its backward pass."""
    run.model.train()
    batches = run._batches(run.config.steps, [("joint", torch.arange(len(run.assembly.train)))])
    return run._forward(run.model, next(batches), "joint")


def validation(run):
    return measure_validation(run.assembly, run.averaged, run.step)


def finish(run):
    return list(chain(run.warm_start(), run.train_jointly()))


def weights(run):
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def test_warm_start_shows_each_expert_its_own_slice_only(registry):
    run = trainer(registry)
    a = run.assembly
    seen = []
    original = a.train.images
    a.train.images = lambda indices: seen.append(set(a.slices.train[indices].tolist())) or original(indices)
    list(run.warm_start())
    assert len(seen) == 4 * 4
    assert seen == [{k} for _ in range(4) for k in range(4)]


def test_joint_training_shows_all_slices(registry):
    run = trainer(registry, "training.warm_start=0", "training.batch_size=64")
    a = run.assembly
    seen = []
    original = a.train.images
    a.train.images = lambda indices: seen.append(set(a.slices.train[indices].tolist())) or original(indices)
    next(run.train_jointly())
    assert seen == [{0, 1, 2, 3}]


def test_warm_start_leaves_the_gate_alone_and_joint_training_moves_it(registry):
    run = trainer(registry)
    before = weights(run)
    list(run.warm_start())
    after = weights(run)
    gate = [name for name in before if name.startswith("gate")]
    assert gate
    assert all(torch.equal(before[name], after[name]) for name in gate)
    assert not any(
        torch.equal(before[name], after[name]) for name in before if name.endswith("network.head.2.weight")
    ), "every expert learns"
    list(run.train_jointly())
    moved = weights(run)
    assert any(not torch.equal(after[name], moved[name]) for name in gate)


@pytest.mark.slow
def test_phases_have_the_lengths_of_the_spec(registry):
    logs = finish(trainer(registry, "training.steps=20", "training.warm_start=0.15"))
    assert [log.phase for log in logs] == ["warm_start"] * 3 + ["joint"] * 17
    assert [log.step for log in logs] == list(range(1, 21))


def test_one_expert_without_a_gate_trains_through_the_same_code(registry):
    run = trainer(registry, "experts.0.copies=1", "gate=null", "slicer=null")
    logs = finish(run)
    assert set(logs[-1].terms) == {"nll"}, "terms about the gate do not apply"
    assert logs[-1].usage == [1.0]


def test_every_term_is_logged_by_itself_in_its_unit(registry):
    last = finish(trainer(registry))[-1]
    assert {name: (term.unit, term.weight) for name, term in last.terms.items()} == {
        "nll": ("bits/dim", 1.0),
        "load_balance": ("nats", 0.1),
        "entropy": ("nats", 0.01),
    }
    assert last.objective == pytest.approx(sum(term.value * term.weight for term in last.terms.values()), rel=1e-5)
    assert len(last.experts) == 4
    assert all(error is not None and error > 0 for error in last.experts)


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 7])
@pytest.mark.slow
def test_training_cut_anywhere_and_resumed_is_bit_equal(registry, cut, tmp_path):
    whole = trainer(registry)
    logs = finish(whole)

    first = trainer(registry)
    list(islice(chain(first.warm_start(), first.train_jointly()), cut))
    path = checkpoint.save(tmp_path, first.snapshot())
    second = trainer(registry)
    second.restore(checkpoint.load(path))
    assert finish(second) == logs[cut:]

    a, b = whole.snapshot().tensors, second.snapshot().tensors
    for group in a:
        assert a[group].keys() == b[group].keys()
        for name in a[group]:
            assert torch.equal(a[group][name], b[group][name]), (group, name)


def test_two_variants_of_one_seed_see_the_same_batches_and_noise(registry):
    seen = []
    for overrides in ([], ["gate.type=top_k", "gate.k=2"], ["gate.type=uniform", "experts.0.channels=8"]):
        run = trainer(registry, "training.warm_start=0", *overrides)
        facts = joint_facts(run)
        seen.append((facts.x, facts.z, facts.log_snr))
    for other in seen[1:]:
        assert all(torch.equal(one, two) for one, two in zip(seen[0], other, strict=True))


def test_two_seeds_differ_in_weights_and_batches(registry):
    one, two = trainer(registry, seed=0), trainer(registry, seed=1)
    assert not torch.equal(joint_facts(one).x, joint_facts(two).x)
    name = "experts.0.network.stem.weight"
    assert not torch.equal(one.model.state_dict()[name], two.model.state_dict()[name])
    assert not torch.equal(one.model.state_dict()[name], one.model.state_dict()["experts.1.network.stem.weight"])


def test_gradients_are_clipped_by_their_global_norm(registry):
    run = trainer(registry, "training.gradient_clip=0.01", "training.warm_start=0")
    log = next(run.train_jointly())
    clipped = torch.sqrt(sum((p.grad**2).sum() for p in run.model.parameters() if p.grad is not None))
    assert log.gradient_norm > 0.01
    assert float(clipped) == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_rises_linearly_then_falls_as_a_cosine(registry):
    run = trainer(registry, "training.steps=100", "training.learning_rate=1.0", "training.learning_rate_warmup=10")
    assert [run.learning_rate(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert run.learning_rate(55) == pytest.approx(0.5)
    assert run.learning_rate(99) < 1e-3
    flat = trainer(registry, "training.learning_rate_decay=none", "training.learning_rate_warmup=0")
    assert flat.learning_rate(0) == flat.learning_rate(7) == flat.config.learning_rate


def test_averaged_weights_follow_the_stated_decay(registry):
    run = trainer(registry, "training.ema_decay=0.5", "training.warm_start=0")
    name = "experts.0.network.stem.weight"
    steps = run.train_jointly()
    next(steps)
    expected = run.model.state_dict()[name].clone()
    assert torch.equal(run.averaged.state_dict()[name], expected), "the average starts at the first weights"
    for n in (1, 2):
        next(steps)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * run.model.state_dict()[name]
    torch.testing.assert_close(run.averaged.state_dict()[name], expected)


@pytest.mark.slow
def test_training_lowers_the_validation_bound(registry):
    run = trainer(
        registry,
        "training.steps=60",
        "training.batch_size=32",
        "training.validation_images=64",
        "training.learning_rate_warmup=5",
        "experts.0.channels=8",
        "training.ema_decay=0.8",
    )
    before = validation(run).bits_per_dim
    finish(run)
    after = validation(run).bits_per_dim
    assert after < 0.8 * before


def test_validation_states_the_routing_over_noise_levels(registry):
    report = validation(trainer(registry))
    assert len(report.gate_weights) == len(report.log_snr) == len(report.router_accuracy) == 11
    assert report.log_snr == sorted(report.log_snr)
    assert report.gate_weights[0] == pytest.approx([0.25] * 4), "an untrained gate is uniform"
    assert report.n == 8


@pytest.mark.slow
def test_workers_change_nothing(registry):
    alone, helped = trainer(registry), trainer(registry, "training.workers=2")
    assert finish(alone) == finish(helped)
    assert all(torch.equal(alone.model.state_dict()[name], tensor) for name, tensor in weights(helped).items())


def test_a_corrupt_image_met_by_a_worker_is_the_same_error_as_without(registry):
    run = trainer(registry, "training.workers=1")

    def corrupt(indices):
        raise DataError("image x.png cannot be decoded")

    run.assembly.train.images = corrupt
    with pytest.raises(DataError, match="^image x.png cannot be decoded$"):
        next(run.warm_start())


def test_horizontal_flip_mirrors_half_of_the_images_and_the_same_ones_again(registry):
    plain = joint_facts(trainer(registry, "training.batch_size=64")).x
    flipped, again = (
        joint_facts(trainer(registry, "training.batch_size=64", "training.horizontal_flip=true")).x for _ in range(2)
    )
    assert torch.equal(flipped, again)
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    same = (flipped == plain).flatten(1).all(1)
    assert bool((mirrored | same).all())
    assert 20 <= int(mirrored.sum()) <= 44


@pytest.mark.slow
def test_bf16_trains_close_to_fp32(registry):
    exact = finish(trainer(registry, "training.warm_start=0"))[0].objective
    rounded = finish(trainer(registry, "training.warm_start=0", "training.precision=bf16"))[0].objective
    assert rounded == pytest.approx(exact, rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own deprecations are not ours
def test_compiled_experts_train_to_the_same_loss(registry):
    smallest = ("experts.0.channel_multipliers=[1]", "experts.0.copies=1", "gate=null", "slicer=null")
    options = (*smallest, "training.steps=2")
    eager = finish(trainer(registry, *options))[-1].objective
    compiled = finish(trainer(registry, *options, "training.compile=true"))[-1].objective
    assert compiled == pytest.approx(eager, rel=1e-3)


# --- numbers that go wrong --------------------------------------------------------------------------------------------


def poison(parameter, value=math.nan):
    with torch.no_grad():
        parameter.fill_(value)


def test_a_non_finite_expert_is_named_within_one_step_in_both_phases(registry):
    for phase, overrides in (("warm_start", []), ("train_jointly", ["training.warm_start=0"])):
        run = trainer(registry, *overrides)
        steps = getattr(run, phase)()
        next(steps)
        poison(run.model.experts[2].network.head[2].bias)
        with pytest.raises(NonFiniteError) as caught:
            next(steps)
        assert str(caught.value) == (
            "step 2: loss term 'nll' is nan; first non-finite in: expert 2; "
            "try a lower training.learning_rate or training.gradient_clip"
        )
        assert run.step == 1, "the step did not count"


def test_a_non_finite_gate_is_named(registry):
    run = trainer(registry, "training.warm_start=0")
    poison(run.model.gate.encoder.head[-1].bias)
    with pytest.raises(NonFiniteError, match="first non-finite in: the gate"):
        next(run.train_jointly())


def test_a_non_finite_gradient_is_named_by_its_part(registry):
    run = trainer(registry, "training.warm_start=0")
    run.model.experts[1].network.stem.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match="the gradient's norm is (nan|inf); first non-finite in: expert 1;"):
        next(run.train_jointly())


@pytest.mark.slow
def test_a_non_finite_loss_keeps_the_state_before_the_step(registry, tmp_path):
    run = trainer(registry, "training.checkpoint_every=1000")
    good = {}

    class Saboteur(Silent):
        count = 0

        def advance(self, note=""):
            self.count += 1
            if self.count == 6:
                good.update(weights(run))
                run.assembly.losses[0].__class__ = BrokenLoss(run.assembly.losses[0].__class__)

    folder = RunFolder(tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        SeedTraining(run, folder, Saboteur()).train_jointly()
    newest = checkpoint.latest(folder.checkpoints(0))
    assert newest.name == "step-00000006"
    assert "step 7: loss term 'nll' is inf; first non-finite in: the loss term itself" in str(caught.value)
    assert str(caught.value).endswith(f"the state before this step is kept: {newest}")
    kept = checkpoint.load(newest).tensors["model"]
    assert all(torch.equal(kept[name], tensor) for name, tensor in good.items())


def BrokenLoss(base):  # noqa: N802
    """The same loss, except that it is infinite."""
    return type("BrokenLoss", (base,), {"__call__": lambda self, step: base.__call__(self, step) * math.inf})


def test_weights_of_another_model_are_refused_and_listed(registry, tmp_path):
    small, other = trainer(registry), trainer(registry, "experts.0.channels=8")
    path = checkpoint.save(tmp_path, small.snapshot())
    with pytest.raises(CheckpointError, match="belongs to another model; tensors of another shape: experts.0"):
        other.restore(checkpoint.load(path))
    single = trainer(registry, "experts.0.copies=1", "gate=null", "slicer=null")
    with pytest.raises(CheckpointError, match="unexpected: experts.1"):
        single.restore(checkpoint.load(path))
