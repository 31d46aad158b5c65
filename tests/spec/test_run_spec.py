"""RunSpec: what identifies a run, broken and conflicting plugins, the published protocol."""

import pytest
import yaml
from pydantic import ValidationError
from spec_parts import ROOT

from moeframe.errors import SpecError
from moeframe.plugin.discovery import installed_entry_points
from moeframe.plugin.registry import Registry
from moeframe.spec.binding import bind
from moeframe.spec.loader import load_spec
from moeframe.spec.messages import UnlocatedProblemsError

DIGITS = ROOT / "specs/digits.yaml"


@pytest.fixture
def tiny(tiny_spec):
    return yaml.safe_load(tiny_spec.read_text())


# --- what identifies a run --------------------------------------------------------------------------------------------


def test_the_resolved_spec_is_the_same_spec(registry):
    spec = load_spec(DIGITS, registry)
    again = bind(yaml.safe_load(yaml.safe_dump(spec.dump())), registry)
    assert again == spec
    assert again.hash() == spec.hash()


def test_writing_a_default_out_does_not_change_the_hash(tiny, registry):
    longer = {**tiny, "seeds": [0], "training": {**tiny["training"], "weight_decay": 0.01}}
    assert bind(longer, registry).hash() == bind(tiny, registry).hash()


def test_the_device_does_not_change_the_hash(tiny, registry):
    assert bind({**tiny, "device": "cuda:1"}, registry).hash() == bind(tiny, registry).hash()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seeds": [1]},
        {"gate": {"type": "softmax", "width": 5}},
        {"metrics": []},
        {"evaluation": {"batch_size": 5}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_changes_the_hash(tiny, registry, change):
    assert bind({**tiny, **change}, registry).hash() != bind(tiny, registry).hash()


def test_copies_count_as_experts(tiny, registry):
    experts = [{"type": "unet", "copies": 3}, {"type": "unet", "channels": 8}]
    spec = bind({**tiny, "experts": experts}, registry)
    assert spec.n_experts == len(spec.expert_configs) == 4
    assert [config.channels for config in spec.expert_configs] == [32, 32, 32, 8]


def test_the_warm_start_is_a_share_of_the_steps(tiny, registry):
    training = {"steps": 10, "warm_start": 0.25}
    assert bind({**tiny, "slicer": {"type": "class_group"}, "training": training}, registry).warm_start_steps == 2


def test_a_spec_cannot_be_changed(tiny, registry):
    spec = bind(tiny, registry)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        spec.gate.width = 3


def test_a_single_expert_needs_neither_gate_nor_slicer(tiny, registry):
    spec = bind({**tiny, "experts": [{"type": "unet"}], "gate": None, "training": {"warm_start": 0.5}}, registry)
    assert spec.gate is None
    assert spec.slicer is None


# --- broken and conflicting plugins -----------------------------------------------------------------------------------


def test_a_broken_plugin_does_not_touch_a_spec_that_does_not_need_it(tiny, registry, on_disk):
    crowded = Registry.installed([on_disk("raises_on_import"), *installed_entry_points(), on_disk("exits_on_import")])
    assert len(crowded.broken) == 2
    assert bind(tiny, crowded) == bind(tiny, registry)


def test_a_spec_that_names_a_broken_plugins_component_fails_with_distribution_and_cause(tiny_spec, on_disk):
    registry = Registry.installed([*installed_entry_points(), on_disk("raises_on_import")])
    with pytest.raises(SpecError) as caught:
        load_spec(tiny_spec, registry, ["gate.type=mine"])
    assert str(caught.value) == (
        "--set gate.type=mine: gate.type: unknown gate 'mine'; "
        "installed: fixed, posterior, random, softmax, switch, top_k, uniform; "
        "a plugin that may supply it is broken: dist-raises_on_import 1.2 (entry point 'raises_on_import'): "
        "RuntimeError: libfoo is missing install it"
    )


def test_a_spec_that_names_a_component_of_two_plugins_fails_naming_both(tiny_spec, on_disk):
    registry = Registry.installed([*installed_entry_points(), on_disk("good_gate"), on_disk("claims_even")])
    with pytest.raises(SpecError) as caught:
        load_spec(tiny_spec, registry, ["gate.type=even"])
    assert str(caught.value) == (
        "--set gate.type=even: gate.type: gate 'even' is supplied by dist-claims_even 1.2 and by dist-good_gate 1.2; "
        "uninstall one of them"
    )


def test_a_strangers_component_is_checked_as_strictly_as_ours(tiny, on_disk):
    registry = Registry.installed([*installed_entry_points(), on_disk("good_gate")])
    assert bind({**tiny, "gate": {"type": "even"}}, registry).gate.type == "even"
    with pytest.raises(UnlocatedProblemsError) as caught:
        bind({**tiny, "gate": {"type": "even", "width": 3}}, registry)
    assert [problem.message for problem in caught.value.problems] == ["unknown key 'width'; known keys: type"]


def test_without_any_gate_installed_the_error_says_so(tiny, on_disk):
    with pytest.raises(UnlocatedProblemsError) as caught:
        bind(tiny, Registry.installed([on_disk("good_slicer")]))
    messages = {problem.path: problem.message for problem in caught.value.problems}
    assert messages["gate", "type"] == "unknown gate 'softmax'; no gate is installed"
    assert len(messages) == 8


# --- the article's protocol -------------------------------------------------------------------------------------------

OFFICIAL = ("celeba_hq", "cifar10", "fashion_mnist", "image_folder", "lsun_church")
SUITE = {
    *("bits_per_dim", "fid", "kid", "inception_score", "precision", "recall", "frechet", "lpips", "diversity"),
    *("psnr", "ssim", "latency", "peak_memory", "parameters", "flops", "network_calls"),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_specs_of_published_data_carry_the_articles_protocol(name, registry):
    spec = load_spec(ROOT / f"specs/{name}.yaml", registry)
    assert spec.n_experts == 4
    assert spec.training.steps == 100_000
    assert spec.warm_start_steps == 15_000
    assert spec.training.gradient_clip == 5.0
    assert spec.gate is not None
    assert spec.gate.model_dump()["dropout"] == 0.1
    assert [(term.type, term.weight) for term in spec.objective] == [
        ("nll", 1.0),
        ("load_balance", 0.1),
        ("entropy", 0.01),
    ]
    assert spec.seeds == [0, 1, 2]
    assert {metric.type for metric in spec.metrics} == SUITE
    assert spec.slicer is not None
