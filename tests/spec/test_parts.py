"""Components that are made of components: their parts are read as strictly as sections."""

import json
from typing import Literal

import pytest
import yaml
from spec_parts import LIGHT_AND_COLOUR, nested, with_part

from moeframe.errors import SpecError
from moeframe.interfaces.slicer import Slicer
from moeframe.plugin.discovery import LoadedPlugins, Provided, load_plugins
from moeframe.plugin.registry import Registry
from moeframe.spec.binding import bind
from moeframe.spec.loader import load_spec
from moeframe.spec.messages import UnlocatedProblemsError


@pytest.fixture
def tiny(tiny_spec):
    return yaml.safe_load(tiny_spec.read_text())


def problems_of_slicer(tiny, registry, slicer):
    with pytest.raises(UnlocatedProblemsError) as caught:
        bind({**tiny, "slicer": slicer}, registry)
    return {".".join(map(str, problem.path)): problem.message for problem in caught.value.problems}


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
    found = problems_of_slicer(tiny, registry, with_part(part))
    assert list(found) == [f"slicer.slicers.1{key}"]
    assert found[f"slicer.slicers.1{key}"].startswith(message)
    deeper = problems_of_slicer(tiny, registry, {**LIGHT_AND_COLOUR, "slicers": [{"type": "texture"}, with_part(part)]})
    assert deeper == {f"slicer.slicers.1.slicers.1{key}": found[f"slicer.slicers.1{key}"]}


def test_a_wrong_part_does_not_hide_another_problem_of_the_component_around_it(tiny, registry):
    found = problems_of_slicer(tiny, registry, {**with_part({"type": "textur"}), "counts": [0, 1], "cuonts": 1})
    assert set(found) == {"slicer.slicers.1.type", "slicer.counts.0", "slicer.cuonts"}


@pytest.mark.parametrize(
    ("slicers", "message"),
    [
        ({"type": "texture"}, "must be a list, not {'type': 'texture'}"),
        ([{"type": "texture"}], "must have at least 2 item(s), not [Config(type='texture', balance='quantile')]"),
    ],
)
def test_the_list_of_parts_is_checked_too(tiny, registry, slicers, message):
    assert problems_of_slicer(tiny, registry, {**LIGHT_AND_COLOUR, "slicers": slicers}) == {"slicer.slicers": message}


def test_what_a_part_has_against_its_count_is_reported_at_the_list(tiny, registry):
    part = {"type": "class_group", "groups": [[0], [1]]}
    assert problems_of_slicer(tiny, registry, with_part(part)) == {
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
    assert problems_of_slicer(tiny, crowded, with_part({"type": "texture"})) == {
        "slicer.slicers.0.type": "'lighting' cannot be a part, because its Config is that of Lighting; "
        "give Heir a nested Config of its own"
    }
