"""A trunk that experts share: run once per step, adapters that begin as nothing, upcycling, costs, training."""

import json
from itertools import chain

import pytest
import torch
import yaml
from small_evaluation import evaluation_of

import moeframe
from moeframe.assembly import assemble, build_model
from moeframe.diffusion import velocity_of
from moeframe.errors import InputError, SpecError
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.probe import require_valid
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.spec.binding import bind
from moeframe.spec.loader import load_spec
from moeframe.storage import checkpoint
from moeframe.testing.rules import stirred
from moeframe.training.trainer import Trainer
from moeframe_builtin.experts.bottleneck import BottleneckExpert
from moeframe_builtin.experts.lora import LoraExpert
from moeframe_builtin.metrics.flops import FlopsMetric
from moeframe_builtin.metrics.latency import LatencyMetric
from moeframe_builtin.metrics.parameters import ParametersMetric
from moeframe_builtin.schedules.linear import LinearSchedule
from moeframe_builtin.trunks.unet import UNetTrunk
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert
from moeframe_pretrained.moeframe_runs.run import RunExpert

IMAGE = ImageShape(1, 8, 8, 16)
TRUNK = {"type": "unet", "channels": 8, "channel_multipliers": [1, 2]}
ADAPTERS = {"lora": {"rank": 2}, "bottleneck": {"width": 4}}


def spec_of(registry, *, adapter="lora", k=4, gate=None, **changes):
    return bind(
        {
            "name": "trunk",
            "device": "cpu",
            "dataset": {"type": "gaussian", "size": 8, "levels": 16, "n_train": 32, "n_test": 8},
            "slicer": {"type": "color_variance"},
            "schedule": {"type": "linear", "log_snr_min": -6, "log_snr_max": 6},
            "trunk": TRUNK,
            "experts": [{"type": adapter, "copies": k, **ADAPTERS[adapter]}],
            "gate": gate or {"type": "softmax", "width": 4},
            "objective": [{"type": "nll"}],
            "sampler": {"type": "ddim", "steps": 3},
            "training": {"steps": 4, "batch_size": 4, "warm_start": 0.5, "validation_images": 4},
            **changes,
        },
        registry,
    )


def model_of(registry, **settings) -> MergedDenoiser:
    spec = spec_of(registry, **settings)
    return stirred(lambda: build_model(spec, registry, IMAGE, Streams(0)), seed=1).eval()


def probe(n=6):
    return Streams(3).normal((n, 1, 8, 8), "z"), torch.linspace(-5, 5, n)


def counted(module) -> list[int]:
    calls = []
    module.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    return calls


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize(
    "gate", [{"type": "softmax", "width": 4}, {"type": "top_k", "k": 1, "reads": "trunk"}], ids=str
)
def test_the_trunk_is_run_once_per_step_whatever_k_and_however_many_are_asked(registry, adapter, k, gate):
    model = model_of(registry, adapter=adapter, k=k, gate=gate)
    trunk, stem = counted(model.trunk), counted(model.trunk.network.stem)
    denoised = model(*probe())
    assert trunk == stem == [6]
    assert denoised.network_calls == (6 if gate["type"] == "top_k" else 6 * k)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_before_training_every_adapter_is_the_trunks_own_network(registry, adapter):
    model = build_model(spec_of(registry, adapter=adapter), registry, IMAGE, Streams(0)).eval()
    stirred(lambda: model.trunk.network)
    z, log_snr = probe()
    own = model.trunk.network(z, log_snr)
    assert float(own.detach().abs().max()) > 0.01
    for k in range(4):
        assert torch.allclose(model.alone(k)(z, log_snr).velocity, own, atol=1e-6)
    assert torch.allclose(model(z, log_snr).velocity, own, atol=1e-6)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_merge_is_the_weighted_sum_of_its_adapters_and_each_differs(registry, adapter):
    model = model_of(registry, adapter=adapter, gate={"type": "top_k", "k": 2, "width": 4})
    z, log_snr = probe()
    denoised = model(z, log_snr)
    alone = torch.stack([model.alone(k)(z, log_snr).velocity for k in range(4)], 1)
    expected = (denoised.routing.weights[:, :, None, None, None] * alone).sum(1)
    assert torch.allclose(denoised.velocity, expected, atol=1e-5)
    assert float((alone[:, 0] - alone[:, 1]).detach().abs().max()) > 1e-3
    assert bool((denoised.routing.weights == 0).any())


def test_lora_is_the_low_rank_update_of_every_later_weight():
    trunk = stirred(lambda: UNetTrunk(UNetTrunk.Config(**TRUNK), image=IMAGE)).eval()
    lora = stirred(lambda: LoraExpert(LoraExpert.Config(rank=2, scale=3.0), image=IMAGE, trunk=trunk)).eval()
    z, log_snr = probe()
    expected = trunk.finish(trunk(z, log_snr), lora, z, log_snr)
    with torch.no_grad():
        for name, weight in trunk.adaptable.items():
            down, up = lora.down[name.replace(".", "/")], lora.up[name.replace(".", "/")]
            rank = torch.linalg.matrix_rank(up @ down)
            assert int(rank) <= 2
            weight.add_(3.0 / len(down) * (up @ down).view_as(weight))
    assert torch.allclose(trunk.network(z, log_snr), expected, atol=1e-4)


@pytest.mark.parametrize("depth", [0, 1, 2, None])
def test_every_depth_of_the_trunk_gives_the_same_network(depth):
    trunk = stirred(lambda: UNetTrunk(UNetTrunk.Config(**TRUNK, depth=depth), image=IMAGE)).eval()
    adapter = BottleneckExpert(BottleneckExpert.Config(), image=IMAGE, trunk=trunk)
    z, log_snr = probe()
    features = trunk(z, log_snr)
    assert torch.allclose(trunk.finish(features, adapter, z, log_snr), trunk.network(z, log_snr), atol=1e-6)
    assert features.summary.shape[1] == trunk.summary_width
    assert len(trunk.adaptable) < len([p for p in trunk.network.parameters() if p.ndim > 1])


@pytest.mark.parametrize("prediction", ["noise", "image", "edm"])
def test_every_prediction_is_converted_to_velocity(prediction):
    config = UNetTrunk.Config(**TRUNK, prediction=prediction)
    trunk = stirred(lambda: UNetTrunk(config, image=IMAGE)).eval()
    adapter = LoraExpert(LoraExpert.Config(), image=IMAGE, trunk=trunk)
    z, log_snr = probe()
    own = trunk.network(trunk.network.native_input(z, log_snr), log_snr)
    expected = trunk.network.velocity(own, z, log_snr)
    assert torch.allclose(trunk.finish(trunk(z, log_snr), adapter, z, log_snr), expected, atol=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_recomputing_blocks_to_save_memory_changes_no_gradient(registry, adapter):
    gradients = []
    for checkpointing in (False, True):
        trunk = {**TRUNK, "gradient_checkpointing": checkpointing}
        model = model_of(registry, adapter=adapter, trunk=trunk, gate={"type": "uniform"}).train()
        model(*probe()).velocity.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-4), name


def test_a_gate_that_reads_the_trunk_has_no_encoder_of_its_own_and_sees_image_and_noise_level(registry):
    model = model_of(registry, gate={"type": "softmax", "reads": "trunk"})
    assert not hasattr(model.gate.encoder, "convolutions")
    z, log_snr = probe()
    routed = model.route(z, log_snr).weights
    assert torch.allclose(routed, model(z, log_snr).routing.weights)
    assert not torch.allclose(model.route(z.flip(0), log_snr).weights, routed, atol=1e-4)
    assert not torch.allclose(model.route(z, log_snr.flip(0)).weights, routed, atol=1e-4)


def test_a_mixture_on_a_trunk_is_a_likelihood_by_the_probe(registry):
    model = model_of(registry, gate={"type": "softmax", "reads": "trunk"})
    schedule = LinearSchedule(LinearSchedule.Config(log_snr_min=-6, log_snr_max=6))
    require_valid(model, IMAGE, schedule, Streams(0), torch.device("cpu"), gate=model.gate, n_items=8)


def test_an_adapter_alone_says_that_it_needs_its_trunk(registry):
    model = model_of(registry)
    with pytest.raises(ValueError, match=r"expert 'lora' needs its trunk: ask the mixture, or MergedDenoiser\.alone"):
        model.experts[0](*probe())


# --- training ---------------------------------------------------------------------------------------------------------


def trained(registry, **settings) -> tuple[Trainer, dict[str, torch.Tensor]]:
    trainer = Trainer(assemble(spec_of(registry, **settings), registry, 0))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    list(chain(trainer.warm_start(), trainer.train_jointly()))
    return trainer, before


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_training_moves_the_trunk_unless_it_is_frozen(registry, frozen):
    trainer, before = trained(registry, trunk={**TRUNK, "frozen": frozen})
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"experts", "gate"} | (set() if frozen else {"trunk"})


@pytest.mark.slow
def test_training_on_a_trunk_cut_and_resumed_is_bit_equal(registry, tmp_path):
    whole, _ = trained(registry)
    first = Trainer(assemble(spec_of(registry), registry, 0))
    next(first.warm_start())
    kept = checkpoint.save(tmp_path, first.snapshot())
    second = Trainer(assemble(spec_of(registry), registry, 0))
    second.restore(checkpoint.load(kept))
    list(chain(second.warm_start(), second.train_jointly()))
    for one, other in ((whole.model, second.model), (whole.averaged, second.averaged)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


# --- costs ------------------------------------------------------------------------------------------------------------


def test_parameters_and_flops_are_split_and_compared_with_independent_experts(registry, tmp_path):
    changes = {"trunk": TRUNK, "experts": [{"type": "lora", "copies": 4, "rank": 2}]}
    on_trunk = evaluation_of(registry, tmp_path / "a", **changes)
    alone = evaluation_of(registry, tmp_path / "b", experts=[{**TRUNK, "copies": 4}])
    size, full = (ParametersMetric(ParametersMetric.Config()).measure(e) for e in (on_trunk, alone))
    assert size.parts["trunk"] + size.parts["adapters"] + size.parts["gate"] == size.value
    assert size.parts["independent_experts"] == full.value
    assert size.parts["adapters"] < size.parts["trunk"] < size.value < full.value
    flops, all_flops = (FlopsMetric(FlopsMetric.Config()).measure(e) for e in (on_trunk, alone))
    # per expert, the low-rank products B A of every later weight come on top
    products = sum(2 * 2 * weight.numel() for weight in on_trunk.trunk.adaptable.values() if weight.shape[0] > 1)
    products += sum(2 * weight.numel() for weight in on_trunk.trunk.adaptable.values() if weight.shape[0] == 1)
    dense, trunk = all_flops.parts["per_step_dense"], flops.parts["per_step_trunk"]
    assert flops.parts["per_step_dense"] == dense - 3 * trunk + 4 * products
    assert flops.parts["per_step_dense_of_independent_experts"] == dense + 4 * products


@pytest.mark.slow
def test_latency_is_measured_with_a_gate_that_reads_the_trunk(registry, tmp_path):
    gate = {"type": "top_k", "k": 2, "reads": "trunk"}
    changes = {"trunk": TRUNK, "experts": [{"type": "bottleneck", "copies": 4}], "gate": gate}
    evaluation = evaluation_of(registry, tmp_path, **changes)
    config = LatencyMetric.Config(batch_size=2, batch_sizes=[], repeats=2)
    assert 0 < LatencyMetric(config).measure(evaluation).parts["gate_share_of_step"] < 1
    assert FlopsMetric(FlopsMetric.Config()).measure(evaluation).parts["per_step_gate"] > 0


# --- upcycling and runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def base_run(tiny_spec, tmp_path):
    moeframe.run(tiny_spec, out=tmp_path / "base")
    return tmp_path / "base"


def upcycled_spec(tiny_text, tmp_path, base, **changes):
    data = {
        **yaml.safe_load(tiny_text),
        "name": "upcycled",
        "trunk": {"type": "unet", "base": {"type": "run", "path": str(base), "expert": 1}},
        "experts": [{"type": "lora", "copies": 3, "rank": 2}],
        **changes,
    }
    path = tmp_path / "upcycled.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_mixture_upcycled_from_one_expert_begins_as_that_expert(base_run, tiny_text, tmp_path, adapter):
    path = upcycled_spec(tiny_text, tmp_path, base_run, experts=[{"type": adapter, "copies": 3}])
    assembly = assemble(load_spec(path, Registry.installed()), Registry.installed(), 0)
    base = RunExpert(RunExpert.Config(path=base_run, expert=1), image=assembly.image).eval()
    z, log_snr = torch.randn(5, 1, 4, 4), torch.linspace(-5, 5, 5)
    items = Trajectories.numbered(Streams(0), 0, 5)
    assert torch.allclose(assembly.model.eval()(z, log_snr, items).velocity, base(z, log_snr), atol=1e-6)


@pytest.mark.slow
def test_a_run_on_an_upcycled_trunk_trains_states_its_base_and_lends_its_experts(base_run, tiny_text, tmp_path):
    path = upcycled_spec(tiny_text, tmp_path, base_run)
    moeframe.run(path, out=tmp_path / "run")
    entry = json.loads((tmp_path / "run/card.json").read_text())["experts"][-1]
    assert (entry["number"], entry["type"], entry["path"]) == ("trunk", "unet", str(base_run))
    loaded = moeframe.load(tmp_path / "run")
    z, log_snr = torch.randn(5, 1, 4, 4), torch.linspace(-5, 5, 5)
    for k in (0, 2):
        lent = RunExpert(RunExpert.Config(path=tmp_path / "run", expert=k), image=loaded.assembly.image).eval()
        assert torch.allclose(lent(z, log_snr), loaded.denoiser.alone(k)(z, log_snr).velocity, atol=1e-6)
        with pytest.raises(InputError, match="holds a mixture of 1, or an adapter on its trunk"):
            save_expert(lent, tmp_path / "nothing")
    with pytest.raises(InputError, match="a change of its run's trunk and nothing alone; export the run as a whole"):
        save_expert(loaded.experts[0], tmp_path / "nothing")
    # the base is needed again only for its architecture: its weights came with the run
    assert velocity_of(z, z, log_snr).shape == z.shape


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"trunk": None}, "'lora' adapts a trunk, but the spec has none; add a section 'trunk'"),
        (
            {"trunk": None, "experts": [{"type": "unet"}], "gate": {"type": "softmax", "reads": "trunk"}},
            "gate.reads: the spec has no trunk to read; add a section 'trunk', or set reads: image",
        ),
        ({"trunk": {"type": "unet", "base": {"type": "unett"}}}, "trunk.base.type: unknown expert 'unett'"),
        ({"trunk": {"type": "unet", "base": [{"type": "unet"}]}}, "trunk.base: "),
        ({"trunk": {"type": "unett"}}, "trunk.type: unknown trunk 'unett'; did you mean 'unet'?"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_trunk_is_said_with_its_place(tiny_text, tmp_path, changes, found):
    with pytest.raises(SpecError) as caught:
        load_spec(upcycled_spec(tiny_text, tmp_path, tmp_path, **changes), Registry.installed())
    assert found in str(caught.value)


def test_a_trunk_deeper_than_its_network_or_of_another_family_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"trunk\.depth: 9 of 3 contracting layers; give 3 or fewer"):
        UNetTrunk(UNetTrunk.Config(**TRUNK, depth=9), image=IMAGE)
    with pytest.raises(InputError, match=r"trunk\.base: 'lora' changes a trunk"):
        UNetTrunk(UNetTrunk.Config(base=LoraExpert.Config()), image=IMAGE)
    base = moeframe.testing.GaussianExpert.Config()
    with pytest.raises(InputError, match="an expert of type 'gaussian_expert' is not a UNet of moeframe"):
        UNetTrunk(UNetTrunk.Config(base=base), image=IMAGE)
