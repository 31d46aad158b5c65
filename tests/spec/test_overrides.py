"""A spec file over its base, and --set over both."""

import pytest
from spec_text import SPEC, changed


def test_a_file_overrides_its_base_key_by_key(load):
    spec = load("base: below.yaml\nname: over\ntraining: {batch_size: 8}\n", below=SPEC)
    assert (spec.name, spec.training.steps, spec.training.batch_size) == ("over", 4, 8)


def test_a_base_alone_is_the_same_spec(load):
    assert load("base: below.yaml\n", below=SPEC).hash() == load(SPEC).hash()


def test_a_change_of_type_replaces_the_whole_section(load):
    below = changed(("{type: softmax}", "{type: softmax, dropout: 0.5}"))
    spec = load("base: below.yaml\ngate: {type: top_k, k: 1}\n", below=below)
    assert spec.gate == type(spec.gate)(type="top_k", k=1)


def test_the_same_type_keeps_the_rest_of_the_section(load):
    below = changed(("{type: softmax}", "{type: softmax, dropout: 0.5}"))
    assert load("base: below.yaml\ngate: {type: softmax, width: 8}\n", below=below).gate.dropout == 0.5


def test_a_list_replaces_the_list_below(load):
    spec = load("base: below.yaml\nmetrics: [{type: latency}]\nexperts: [{type: unet}]\n", below=SPEC)
    assert [metric.type for metric in spec.metrics] == ["latency"]
    assert spec.n_experts == 1


def test_a_section_can_be_emptied(load):
    spec = load("base: below.yaml\nexperts: [{type: unet}]\ngate: null\nslicer: null\n", below=SPEC)
    assert spec.gate is None
    assert spec.slicer is None


BASES = {
    "missing": (
        "base: none.yaml\n",
        SPEC,
        "spec.yaml:1:7: base: no file none.yaml; base is relative to the file that names it",
    ),
    "a folder": ("base: .\n", SPEC, "base is relative to the file that names it"),
    "a number": ("base: 3\n", SPEC, "spec.yaml:1:7: base: must be the name of a file, not 3"),
    "empty": ("base:\n", SPEC, "spec.yaml:1:6: base: must be the name of a file, not None"),
    "two levels": (
        "base: below.yaml\n",
        "base: further.yaml\n",
        "below.yaml:1:7: base: below.yaml has a base itself; only one level is allowed",
    ),
    "itself": (
        "base: spec.yaml\n",
        SPEC,
        "spec.yaml:1:7: base: spec.yaml has a base itself; only one level is allowed",
    ),
    "a mistake below": (
        "name: over\nbase: below.yaml\n",
        changed(("softmax", "sofmax")),
        "below.yaml:8:14: gate.type: unknown gate 'sofmax'; did you mean 'softmax'?; "
        "installed: fixed, posterior, random, softmax, switch, top_k, uniform",
    ),
    "a mistake above": (
        "name: over\nbase: below.yaml\ntraining: {steps: -3}\n",
        SPEC,
        "spec.yaml:3:19: training.steps: must be greater than or equal to 0, not -3",
    ),
    "a mistake in a replaced list": (
        "base: below.yaml\nexperts:\n- {type: unet, copies: 2}\n- {type: unet, copies: 0}\n",
        SPEC,
        "spec.yaml:4:24: experts.1.copies: must be greater than or equal to 1, not 0",
    ),
    "a key of the type below": (
        "base: below.yaml\ngate: {k: 2}\n",
        SPEC,
        "spec.yaml:2:8: gate.k: unknown key 'k'; known keys: type, width, hidden, dropout, reads",
    ),
    "not YAML": ("base: below.yaml\n", "[", "below.yaml:1:2: not YAML: expected the node content"),
}


@pytest.mark.parametrize(("text", "below", "expected"), BASES.values(), ids=BASES)
def test_a_mistake_with_a_base_names_the_right_file(errors, text, below, expected):
    (line,) = errors(text, below=below)
    assert expected in line


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("training.steps=7", lambda spec: spec.training.steps, 7),
        ("training.learning_rate=1e-4", lambda spec: spec.training.learning_rate, 1e-4),
        (" training.steps = 7", lambda spec: spec.training.steps, 7),
        ("experts.0.channels=8", lambda spec: spec.experts[0].channels, 8),
        ("seeds=[3, 4]", lambda spec: spec.seeds, [3, 4]),
        ("metrics=[]", lambda spec: spec.metrics, []),
        ("evaluation.weights=raw", lambda spec: spec.evaluation.weights, "raw"),
        ("gate.type=uniform", lambda spec: spec.gate.type, "uniform"),
        ("gate={type: top_k, k: 1}", lambda spec: spec.gate.k, 1),
        ("name=2020-01-01", lambda spec: spec.name, "2020-01-01"),
        ("name=2020-99-99", lambda spec: spec.name, "2020-99-99"),
    ],
)
def test_set_overrides_one_value(load, override, read, value):
    assert read(load(SPEC, override)) == value


def test_set_of_a_type_drops_the_settings_of_the_old_one(load):
    text = changed(("{type: softmax}", "{type: softmax, dropout: 0.5}"))
    assert load(text, "gate.type=uniform").gate.type == "uniform"
    assert load(text, "gate.type=softmax").gate.dropout == 0.5


def test_set_wins_over_base_and_the_last_set_over_the_first(load):
    text = "base: below.yaml\ntraining: {steps: 5}\n"
    assert load(text, "training.steps=6", "training.steps=7", below=SPEC).training.steps == 7


SETS = {
    "training.steps": "--set training.steps: write it as path=value, for example --set training.steps=500",
    "=7": "--set =7: write it as path=value, for example --set training.steps=500",
    "training..steps=7": "--set training..steps=7: write it as path=value, for example --set training.steps=500",
    "base=x.yaml": "--set base=x.yaml: base: can only be written in the spec file",
    "experts.1.channels=8": "--set experts.1.channels=8: experts: '1' is not in this list; its items are 0 .. 0",
    "experts.-1.channels=8": "--set experts.-1.channels=8: experts: '-1' is not in this list; its items are 0 .. 0",
    "experts.²=8": "--set experts.²=8: experts: '²' is not in this list; its items are 0 .. 0",
    "seeds.1=4": "--set seeds.1=4: seeds: '1' is not in this list; its items are 0 .. 0",
    "name.x=1": "--set name.x=1: name: is the value 'small', it has no key 'x'",
    "training.steps=x": "--set training.steps=x: training.steps: must be an integer, not 'x'",
    "training.step=1": "--set training.step=1: training.step: unknown key 'step'; did you mean 'steps'?; known keys: ",
    "trainig.steps=1": "--set trainig.steps=1: trainig: unknown key 'trainig'; did you mean 'training'?; known keys: ",
    "gate.type=sofmax": "--set gate.type=sofmax: gate.type: unknown gate 'sofmax'; did you mean 'softmax'?; installed:",
    "gate.k=1": "--set gate.k=1: gate.k: unknown key 'k'; known keys: type, width, hidden, dropout, reads",
    "gate=null": "--set gate=null: gate: 2 experts need a gate: add a section 'gate', for example  gate: ",
    "training.steps=[": "--set training.steps=[: not YAML: expected the node content, but found '<stream end>'",
    "name=*a": "--set name=*a: not YAML: found undefined alias 'a'",
    "name=&a [*a]": "--set name=&a [*a]: expands to more than 10,000 values or 40 levels; ",
    "name=!!python/name:os.system": "--set name=!!python/name:os.system: the tag tag:yaml.org,2002:python/name:",
    "metrics.1.label=parameters": "spec.yaml:13:31: metrics.1: a second metric is called 'parameters'; ",
    "experts=[{type: unet, copies: 0}]": "--set experts=[{type: unet, copies: 0}]: experts.0.copies: must be greater ",
}


@pytest.mark.parametrize(("override", "expected"), SETS.items(), ids=SETS)
def test_a_wrong_set_is_quoted(errors, override, expected):
    (line,) = errors(SPEC, override)
    assert line.startswith(expected)


def test_a_default_is_not_blamed_on_the_value_that_it_replaced(errors):
    text = changed(("{type: softmax}", "{type: top_k, k: 1}"))
    alone = "experts.0.copies=1"
    (line,) = errors(text, alone, "gate={type: top_k}")
    assert line.startswith("--set gate={type: top_k}: gate.k: k = 2 exceeds the number of experts, 1; ")
    below = changed(("{type: softmax}", "{type: random, k: 1}"))
    (line,) = errors("base: below.yaml\ngate: {type: top_k}\n", alone, below=below)
    assert line.startswith("spec.yaml:2:7: gate.k: k = 2 exceeds the number of experts, 1; ")


def test_all_wrong_sets_are_reported(errors):
    lines = errors(SPEC, "training.steps", "seeds.1=4", "name=x")
    assert [line.split(": ")[0] for line in lines] == ["--set training.steps", "--set seeds.1=4"]
