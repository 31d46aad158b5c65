"""RunSpec: what identifies a run, what a broken plugin does to it, and the JSON Schema for editors."""

import json
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from moeframe.errors import SpecError
from moeframe.interfaces.slicer import Slicer
from moeframe.plugin.discovery import LoadedPlugins, Provided, installed_entry_points, load_plugins
from moeframe.plugin.registry import Registry
from moeframe.spec.binding import bind
from moeframe.spec.json_schema import json_schema
from moeframe.spec.loader import load_spec
from moeframe.spec.messages import FlawsError
from moeframe.spec.schema import LIST_SECTIONS, SECTIONS

ROOT = Path(__file__).parent.parent
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
    with pytest.raises(FlawsError) as caught:
        bind({**tiny, "gate": {"type": "even", "width": 3}}, registry)
    assert [flaw.message for flaw in caught.value.flaws] == ["unknown key 'width'; known keys: type"]


def test_without_any_gate_installed_the_error_says_so(tiny, on_disk):
    with pytest.raises(FlawsError) as caught:
        bind(tiny, Registry.installed([on_disk("good_slicer")]))
    messages = {flaw.path: flaw.message for flaw in caught.value.flaws}
    assert messages["gate", "type"] == "unknown gate 'softmax'; no gate is installed"
    assert len(messages) == 8


# --- components made of components ------------------------------------------------------------------------------------

LIGHT_AND_COLOUR = {
    "type": "product",
    "slicers": [{"type": "lighting", "balance": "natural"}, {"type": "color_variance"}],
    "counts": [2, 1],
}


def flaws_of_slicer(tiny, registry, slicer):
    with pytest.raises(FlawsError) as caught:
        bind({**tiny, "slicer": slicer}, registry)
    return {".".join(map(str, flaw.path)): flaw.message for flaw in caught.value.flaws}


def with_part(part):
    return {**LIGHT_AND_COLOUR, "slicers": [{"type": "lighting"}, part]}


def nested(depth):
    """A product in a product, the innermost of two parts."""
    inner = LIGHT_AND_COLOUR
    for _ in range(depth):
        inner = {"type": "product", "slicers": [inner, {"type": "texture"}], "counts": [2, 1]}
    return inner


def test_parts_are_bound_to_the_configs_of_their_components(tiny, registry):
    light, colour = bind({**tiny, "slicer": LIGHT_AND_COLOUR}, registry).slicer.slicers
    assert (type(light), type(colour)) == tuple(
        registry.get(Slicer, name).Config for name in ("lighting", "color_variance")
    )
    assert (light.balance, colour.balance) == ("natural", "quantile")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_dump_has_every_setting_of_every_part_and_is_the_same_spec(tiny, registry, depth):
    spec = bind({**tiny, "slicer": nested(depth)}, registry)
    innermost = spec.dump()["slicer"]
    for _ in range(depth):
        innermost = innermost["slicers"][0]
    assert innermost["slicers"] == [
        {"type": "lighting", "by": "level", "balance": "natural"},
        {"type": "color_variance", "balance": "quantile"},
    ]
    again = bind(yaml.safe_load(yaml.safe_dump(spec.dump())), registry)
    assert again == spec
    assert again.hash() == spec.hash()


def test_a_setting_of_a_part_changes_the_hash(tiny, registry):
    specs = [bind({**tiny, "slicer": with_part({"type": name})}, registry) for name in ("texture", "color_variance")]
    assert specs[0].hash() != specs[1].hash()


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ({"type": "texture", "balanc": "natural"}, ".balanc", "unknown key 'balanc'; did you mean 'balance'?; known"),
        ({"type": "textur"}, ".type", "unknown slicer 'textur'; did you mean 'texture'?; installed: attribute, class_"),
        ({"balance": "natural"}, "", "missing key 'type'; installed slicers: attribute, class_group"),
        ("texture", "", "must be a mapping with a 'type', not 'texture'; installed slicers: attribute, class_group"),
        (None, "", "must be a mapping with a 'type', not None; installed slicers: attribute, class_group"),
        ({"type": ["texture"]}, ".type", "must be the name of a component, not ['texture']; installed slicers: "),
        ({"type": "softmax"}, ".type", "unknown slicer 'softmax'"),
    ],
    ids=str,
)
def test_a_wrong_part_is_reported_once_as_strictly_as_a_section(tiny, registry, part, key, message):
    found = flaws_of_slicer(tiny, registry, with_part(part))
    assert list(found) == [f"slicer.slicers.1{key}"]
    assert found[f"slicer.slicers.1{key}"].startswith(message)
    deeper = flaws_of_slicer(tiny, registry, {**LIGHT_AND_COLOUR, "slicers": [{"type": "texture"}, with_part(part)]})
    assert deeper == {f"slicer.slicers.1.slicers.1{key}": found[f"slicer.slicers.1{key}"]}


def test_a_wrong_part_does_not_hide_another_flaw_of_its_whole(tiny, registry):
    found = flaws_of_slicer(tiny, registry, {**with_part({"type": "textur"}), "counts": [0, 1], "cuonts": 1})
    assert set(found) == {"slicer.slicers.1.type", "slicer.counts.0", "slicer.cuonts"}


@pytest.mark.parametrize(
    ("slicers", "message"),
    [
        ({"type": "texture"}, "must be a list, not {'type': 'texture'}"),
        ([{"type": "texture"}], "must have at least 2 item(s), not [Config(type='texture', balance='quantile')]"),
    ],
)
def test_the_list_of_parts_is_checked_too(tiny, registry, slicers, message):
    assert flaws_of_slicer(tiny, registry, {**LIGHT_AND_COLOUR, "slicers": slicers}) == {"slicer.slicers": message}


def test_what_a_part_has_against_its_count_is_reported_at_the_list(tiny, registry):
    part = {"type": "class_group", "groups": [[0], [1]]}
    assert flaws_of_slicer(tiny, registry, with_part(part)) == {
        "slicer.slicers": "slicer 1 ('class_group', for which its count 1 is the number of experts), groups: "
        "2 groups for 1 experts; give one group of classes per expert"
    }


def test_set_reaches_into_a_part(tiny_spec, registry):
    sets = [f"slicer={json.dumps(LIGHT_AND_COLOUR)}", "slicer.slicers.0.by=direction", "slicer.slicers.1.type=texture"]
    light, texture = load_spec(tiny_spec, registry, sets).slicer.slicers
    assert (light.by, light.balance, texture.type) == ("direction", "natural", "texture")
    with pytest.raises(SpecError) as caught:
        load_spec(tiny_spec, registry, [*sets, "slicer.slicers.0.by=left"])
    assert str(caught.value).startswith("--set slicer.slicers.0.by=left: slicer.slicers.0.by: must be 'level', ")


def test_a_config_belongs_to_the_first_class_that_has_it_as_its_own():
    class First(Slicer):
        """Has a Config of its own."""

        class Config(Slicer.Config):
            type: Literal["first"] = "first"

    class Heir(First):
        """Inherits it."""

    class Borrower(Slicer):
        """Borrows it."""

        Config = First.Config

    assert First.Config.component is Heir.Config.component is Borrower.Config.component is First
    assert Slicer.Config.component is Slicer


def test_a_part_whose_config_is_of_another_class_is_refused(tiny, registry):
    lighting = registry.get(Slicer, "lighting")

    class Heir(lighting):
        """Inherits its Config from a slicer that is not installed."""

    others = [item for item in load_plugins().provided if item.component is not lighting]
    crowded = Registry(LoadedPlugins((*others, Provided(Heir, others[0].provider)), ()))
    assert flaws_of_slicer(tiny, crowded, with_part({"type": "texture"})) == {
        "slicer.slicers.0.type": "'lighting' cannot be a part, because its Config is that of Lighting; "
        "give Heir a nested Config of its own"
    }


# --- JSON Schema ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(registry):
    return json_schema(registry)


@pytest.fixture(scope="module")
def complaints(schema):
    """The messages of a draft-7 validator about some data."""
    validator = jsonschema.Draft7Validator(schema)
    return lambda data: [error.message for error in validator.iter_errors(data)]


def test_the_schema_is_draft_7_and_nothing_later(schema):
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    text = json.dumps(schema)
    assert not [word for word in ("prefixItems", "$defs", "unevaluated", "dependentRequired") if word in text]


def test_the_schema_lists_every_installed_component(schema, registry):
    for section, kind in {**SECTIONS, **LIST_SECTIONS}.items():
        place = schema["properties"][section]
        choices = (place if section in SECTIONS else place["items"])["oneOf"]
        names = [
            schema["definitions"][choice["$ref"].removeprefix("#/definitions/")]["properties"]["type"]["const"]
            for choice in choices
            if "$ref" in choice
        ]
        assert names == registry.names(kind)


SHIPPED = [path for path in ROOT.glob("specs/**/*.yaml") if path.parent.name != "studies"]


@pytest.mark.parametrize("path", [*SHIPPED, *ROOT.glob("examples/**/parity.yaml")], ids=str)
def test_the_schema_accepts_what_we_ship(complaints, path):
    assert complaints(yaml.safe_load(path.read_text())) == []


def test_the_schema_accepts_every_resolved_spec(complaints, tiny, registry):
    alone = {**tiny, "experts": [{"type": "unet"}], "gate": None}
    for data in (tiny, alone, {**tiny, "slicer": nested(2)}, {**tiny, "slicer": {"type": "semantic"}}):
        assert complaints(bind(data, registry).dump()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"gaet": {"type": "softmax"}},
        {"gate": {"type": "softmax", "droput": 0.1}},
        {"gate": {"type": "sofmax"}},
        {"gate": {"k": 1}},
        {"dataset": None},
        {"experts": {"type": "unet"}},
        {"experts": []},
        {"training": {"steps": -1}},
        {"seeds": [-1]},
        {"name": "../tiny"},
        {"slicer": with_part({"type": "textur"})},
        {"slicer": with_part({"balance": "natural"})},
        {"slicer": with_part({"type": "texture", "balanc": "natural"})},
        {"slicer": with_part(with_part({"type": "texture", "balance": "even"}))},
        {"slicer": {**LIGHT_AND_COLOUR, "slicers": [{"type": "lighting"}]}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_validation_refuses(complaints, tiny, registry, change):
    assert complaints({**tiny, **change})
    with pytest.raises(FlawsError):
        bind({**tiny, **change}, registry)


def test_the_schema_asks_for_sections_unless_there_is_a_base(complaints):
    assert complaints({"name": "x"})
    assert complaints({"name": "x", "base": "digits.yaml"}) == []


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
