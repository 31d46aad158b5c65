"""Merging in weight space: against the formulae, and refusals of what cannot be merged so."""

import json

import pytest
import torch
import yaml

import moeframe
from moeframe.errors import InputError, SpecError
from moeframe.interfaces.component import ImageShape
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe_builtin.experts.average import AverageExpert
from moeframe_builtin.experts.lora import LoraExpert
from moeframe_builtin.experts.slerp import SlerpExpert, slerp
from moeframe_builtin.experts.support.weight_space import WeightSpaceExpert
from moeframe_builtin.experts.task_arithmetic import TaskArithmeticExpert
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_pretrained.moeframe_runs.checkpoint import CheckpointExpert
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert

IMAGE = ImageShape(1, 4, 4, 8)
WAYS = (AverageExpert, SlerpExpert, TaskArithmeticExpert)


def saved(folder, seed, **settings):
    """The config of an expert with its own random weights."""
    torch.manual_seed(seed)
    expert = UNetExpert(UNetExpert.Config(channels=4, channel_multipliers=[1], **settings), image=IMAGE)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.normal_()
    return CheckpointExpert.Config(path=save_expert(expert, folder / f"expert-{seed}"))


@pytest.fixture
def three(tmp_path):
    return tuple(saved(tmp_path, seed) for seed in range(3))


def build(way, parts, **settings) -> WeightSpaceExpert:
    return way(way.Config(experts=parts, **settings), image=IMAGE).eval()


def states(parts):
    return [CheckpointExpert(part, image=IMAGE).core().state_dict() for part in parts]


def probe():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.linspace(-4, 4, 3)


@pytest.mark.parametrize("way", WAYS)
def test_equal_experts_merge_to_themselves(way, three):
    alone = CheckpointExpert(three[1], image=IMAGE).eval()
    merged = build(way, [three[1]] * 2)
    assert torch.allclose(merged(*probe()), alone(*probe()), atol=1e-6)


def test_the_average_is_the_weighted_mean_of_every_weight(three):
    own = states(three)
    for weights in (None, (0.5, 0.2, 0.3)):
        merged = build(AverageExpert, three, weights=weights).inner.state_dict()
        for name, tensor in merged.items():
            expected = sum(w * state[name].double() for w, state in zip(weights or (1 / 3,) * 3, own, strict=True))
            assert torch.allclose(tensor.double(), expected, atol=1e-6), name


def test_task_arithmetic_adds_what_the_others_learned(three):
    base, one, two = states(three)
    merged = build(TaskArithmeticExpert, three, scale=0.7).inner.state_dict()
    for name, tensor in merged.items():
        expected = base[name] + 0.7 * (one[name] - base[name] + two[name] - base[name])
        assert torch.allclose(tensor, expected, atol=1e-5), name
    mean = build(TaskArithmeticExpert, three, scale=0.5)
    assert torch.allclose(mean(*probe()), build(AverageExpert, three[1:])(*probe()), atol=1e-4)


def test_slerp_goes_from_one_end_to_the_other_keeping_angle_and_length(three):
    ends = three[:2]
    for fraction, end in ((0.0, three[0]), (1.0, three[1])):
        expected = CheckpointExpert(end, image=IMAGE).eval()(*probe())
        assert torch.allclose(build(SlerpExpert, ends, fraction=fraction)(*probe()), expected, atol=1e-5)
    a, b = torch.nn.functional.normalize(torch.randn(2, 50, dtype=torch.float64), dim=1)
    middle = slerp(a, b, 0.5)
    assert float(middle.norm()) == pytest.approx(1)
    assert float(middle @ a) == pytest.approx(float(middle @ b))
    for degenerate in (torch.zeros(50), 2 * a, -a):
        assert bool(slerp(a, degenerate.double(), 0.3).isfinite().all())


@pytest.mark.parametrize("way", WAYS)
def test_another_architecture_is_refused_with_the_first_tensor_that_differs(way, three, tmp_path):
    wider = saved(tmp_path, 7, attention_resolutions=[4])
    with pytest.raises(InputError, match=r"experts\.1: its tensor .* tensors differ\); weights can be merged between"):
        build(way, [three[0], wider])


def test_another_parametrisation_is_refused_although_every_tensor_fits(three, tmp_path):
    noise = saved(tmp_path, 8, prediction="noise")
    with pytest.raises(InputError, match=r'experts\.1: is .*"prediction": "noise".*, expert 0 is .*"velocity"'):
        build(AverageExpert, [three[0], noise])


def test_adapters_have_no_network_of_their_own_to_merge():
    with pytest.raises(InputError, match="experts: 'lora' changes a trunk and has no weights of a network of its own"):
        build(AverageExpert, [LoraExpert.Config()] * 2)


SPEC = {
    "name": "averaged",
    "device": "cpu",
    "dataset": {"type": "gaussian", "size": 4, "levels": 8, "n_train": 16, "n_test": 8},
    "schedule": {"type": "linear"},
    "objective": [{"type": "nll"}],
    "sampler": {"type": "ddim", "steps": 2},
    "metrics": [{"type": "network_calls"}],
    "training": {"trainable": "none"},
    "evaluation": {"samples_shown": 2, "diagnostic_images": 4},
}


def spec_of(tmp_path, **expert):
    path = tmp_path / "averaged.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "experts": [expert]}))
    return path


@pytest.mark.slow
def test_a_spec_merges_weights_at_the_cost_of_one_and_states_the_parts(three, tmp_path):
    parts = [{"type": "checkpoint", "path": str(part.path), "licence": "CC BY-NC 4.0"} for part in three]
    path = spec_of(tmp_path, type="average", experts=parts)
    assert moeframe.merge(path, out=tmp_path / "run").metrics["network_calls"].mean == 2, (
        "one call at each of two steps"
    )
    (entry,) = json.loads((tmp_path / "run/card.json").read_text())["experts"]
    assert entry["source"] == "merged in weight space (average)"
    assert entry["licence"] == "CC BY-NC 4.0"
    assert entry["part 2 path"] == str(three[2].path)
    assert "must not be used commercially" in entry["warning"]
    loaded = moeframe.load(tmp_path / "run")
    assert torch.allclose(loaded.denoiser(*probe()).velocity, build(AverageExpert, three)(*probe()), atol=1e-6)


@pytest.mark.parametrize(
    ("expert", "found"),
    [
        (
            {"type": "average", "experts": [{"type": "unet"}, {"type": "unett"}]},
            "experts.0.experts.1.type: unknown expert 'unett'; did you mean 'unet'?",
        ),
        (
            {"type": "average", "experts": [{"type": "unet"}]},
            "experts.0.experts: a single expert cannot be merged; name two or more, copies counted",
        ),
        (
            {"type": "slerp", "experts": [{"type": "unet", "copies": 3}]},
            "experts.0.experts: 3 experts; slerp goes from one to one other: name two, or use average",
        ),
        (
            {"type": "average", "experts": [{"type": "unet", "copies": 2}], "weights": [1.0]},
            "experts.0.weights: 1 weights for 2 experts; give one per expert",
        ),
        (
            {"type": "average", "experts": [{"type": "unet"}] * 2, "weights": [0.5, 0.3, 0.2]},
            "experts.0.weights: 3 weights for 2 experts; give one per expert",
        ),
        (
            {"type": "average", "experts": [{"type": "unet"}] * 2, "weights": [0.5, 0.3]},
            "experts.0.weights: the weights sum to 0.8, not to 1: [0.5, 0.3]",
        ),
    ],
)
def test_what_is_wrong_with_the_parts_is_said_with_its_place(tmp_path, expert, found):
    with pytest.raises(SpecError) as caught:
        load_spec(spec_of(tmp_path, **expert), Registry.installed())
    assert found in str(caught.value)
