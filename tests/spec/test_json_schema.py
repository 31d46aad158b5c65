"""The JSON Schema of spec files accepts and refuses what validation does."""

import json

import jsonschema
import pytest
import yaml
from spec_parts import LIGHT_AND_COLOUR, ROOT, nested, with_part

from moeframe.spec.binding import bind
from moeframe.spec.json_schema import json_schema
from moeframe.spec.messages import UnlocatedProblemsError
from moeframe.spec.schema import LIST_SECTIONS, SECTIONS


@pytest.fixture
def tiny(tiny_spec):
    return yaml.safe_load(tiny_spec.read_text())


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
    with pytest.raises(UnlocatedProblemsError):
        bind({**tiny, **change}, registry)


def test_the_schema_asks_for_sections_unless_there_is_a_base(complaints):
    assert complaints({"name": "x"})
    assert complaints({"name": "x", "base": "digits.yaml"}) == []
