"""Spec files: what is wrong with one is said with file, line and column, everything at once, and nothing crashes."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moeframe.errors import InputError, MoeframeError, SpecError
from moeframe.spec.loader import load_spec, read_document

ROOT = Path(__file__).parent.parent
SPECS = [
    *(path for path in sorted(ROOT.glob("specs/**/*.yaml")) if path.parent.name != "studies"),
    *sorted(ROOT.glob("examples/**/parity.yaml")),
]

SPEC = """\
name: small
seeds: [0]
dataset: {type: gaussian}
slicer: {type: class_group}
schedule: {type: linear}
experts:
  - {type: unet, copies: 2}
gate: {type: softmax}
objective:
  - {type: nll}
  - {type: entropy, weight: 0.1}
sampler: {type: ddim}
metrics: [{type: parameters}, {type: network_calls}]
training: {steps: 4}
"""
TOP_KEYS = (
    "name, seeds, device, dataset, slicer, schedule, trunk, experts, gate, objective, sampler, metrics, training, "
    "evaluation"
)


def changed(*replacements):
    """SPEC with some pieces of text replaced."""
    text = SPEC
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def load(tmp_path, registry):
    """Load a text as spec.yaml, beside other files."""

    def load_text(text, *overrides, **others):
        for name, content in others.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        path = tmp_path / "spec.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_spec(path, registry, overrides)

    return load_text


@pytest.fixture
def errors(load, tmp_path):
    """The lines of the report on a text, without the folder's name."""

    def report(text, *overrides, **others):
        with pytest.raises(InputError) as caught:
            load(text, *overrides, **others)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n")

    return report


# --- the files that we ship -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_spec_that_we_ship_validates(path, registry):
    load_spec(path, registry)


def test_the_specs_that_we_ship_are_found():
    assert {"digits.yaml", "parity.yaml"} <= {path.name for path in SPECS}


def test_the_spec_of_these_tests_validates(load):
    assert load(SPEC).n_experts == 2


# --- one mistake, one line --------------------------------------------------------------------------------------------

MISTAKES = {
    "misspelt component": (
        changed(("softmax", "sofmax")),
        "spec.yaml:8:14: gate.type: unknown gate 'sofmax'; did you mean 'softmax'?; "
        "installed: fixed, posterior, random, softmax, switch, top_k, uniform",
    ),
    "unknown component": (
        changed(("{type: ddim}", "{type: xyz}")),
        "spec.yaml:12:17: sampler.type: unknown sampler 'xyz'; installed: ancestral, ddim, heun",
    ),
    "component is a word": (
        changed(("gate: {type: softmax}", "gate: softmax")),
        "spec.yaml:8:7: gate: must be a mapping with a 'type', not 'softmax'; "
        "installed gates: fixed, posterior, random, softmax, switch, top_k, uniform",
    ),
    "component without type": (
        changed(("sampler: {type: ddim}", "sampler: {steps: 3}")),
        "spec.yaml:12:10: sampler: missing key 'type'; installed samplers: ancestral, ddim, heun",
    ),
    "component's type is a list": (
        changed(("{type: ddim}", "{type: [ddim]}")),
        "spec.yaml:12:17: sampler.type: must be the name of a component, not ['ddim']; "
        "installed samplers: ancestral, ddim, heun",
    ),
    "component is empty": (
        changed(("schedule: {type: linear}", "schedule:")),
        "spec.yaml:5:10: schedule: must be a mapping with a 'type', not None; "
        "installed schedules: cosine, ddpm, edm, linear",
    ),
    "unknown key of a component": (
        changed(("{type: softmax}", "{type: softmax, droput: 0.1}")),
        "spec.yaml:8:23: gate.droput: unknown key 'droput'; did you mean 'dropout'?; "
        "known keys: type, width, hidden, dropout, reads",
    ),
    "unknown section": (
        SPEC + "trainign: {steps: 3}\n",
        f"spec.yaml:15:1: trainign: unknown key 'trainign'; did you mean 'training'?; known keys: {TOP_KEYS}",
    ),
    "unknown section like no other": (
        SPEC + "xyz: 3\n",
        f"spec.yaml:15:1: xyz: unknown key 'xyz'; known keys: {TOP_KEYS}",
    ),
    "missing section": (
        changed(("dataset: {type: gaussian}\n", "")),
        "spec.yaml:1:1: missing key 'dataset'",
    ),
    "several experts without a gate": (
        changed(("gate: {type: softmax}\n", "")),
        "spec.yaml:1:1: gate: 2 experts need a gate: add a section 'gate', for example  gate: {type: softmax}",
    ),
    "warm start without a slicer": (
        changed(("slicer: {type: class_group}\n", "")),
        "spec.yaml:1:1: slicer: the warm start of 2 experts needs a slicer: add a section 'slicer', "
        "or set training.warm_start: 0",
    ),
    "more chosen than there are": (
        changed(("{type: softmax}", "{type: top_k, k: 3}")),
        "spec.yaml:8:24: gate.k: k = 3 exceeds the number of experts, 2; lower k or add experts",
    ),
    "groups and experts differ": (
        changed(("{type: class_group}", "{type: class_group, groups: [[0], [1], [2]]}")),
        "spec.yaml:4:37: slicer.groups: 3 groups for 2 experts; give one group of classes per expert",
    ),
    "negative loss weight": (
        changed(("weight: 0.1", "weight: -0.1")),
        "spec.yaml:11:29: objective.1.weight: must be greater than or equal to 0, not -0.1",
    ),
    "no loss": (
        changed(("objective:\n  - {type: nll}\n  - {type: entropy, weight: 0.1}", "objective: []")),
        "spec.yaml:9:12: objective: must have at least 1 item(s), not []",
    ),
    "experts are no list": (
        changed(("  - {type: unet, copies: 2}", "  {type: unet}")),
        "spec.yaml:7:3: experts: must be a list, not {'type': 'unet'}",
    ),
    "too many copies": (
        changed(("copies: 2", "copies: 1000000000")),
        "spec.yaml:7:26: experts.0.copies: must be less than or equal to 1024, not 1000000000",
    ),
    "training is no mapping": (
        changed(("training: {steps: 4}", "training: 4")),
        "spec.yaml:14:11: training: must be a mapping, not 4",
    ),
    "a fraction of a step": (
        changed(("steps: 4", "steps: 4.5")),
        "spec.yaml:14:19: training.steps: must be a whole number, not 4.5",
    ),
    "a word for a number": (
        changed(("weight: 0.1", "weight: much")),
        "spec.yaml:11:29: objective.1.weight: must be a number, not 'much'",
    ),
    "not a number": (
        changed(("steps: 4", "learning_rate: .nan")),
        "spec.yaml:14:27: training.learning_rate: must be a finite number, not nan",
    ),
    "infinite": (
        changed(("weight: 0.1", "weight: .inf")),
        "spec.yaml:11:29: objective.1.weight: must be a finite number, not inf",
    ),
    "infinite in words": (
        changed(("weight: 0.1", "weight: 1e999")),
        "spec.yaml:11:29: objective.1.weight: must be a finite number, not '1e999'",
    ),
    "an integer of 30 digits": (
        changed(("steps: 4", "steps: " + "9" * 30)),
        "spec.yaml:14:19: training.steps: this integer is beyond 64 bits",
    ),
    "repeated seeds": (
        changed(("[0]", "[0, 1, 0]")),
        "spec.yaml:2:8: seeds: seeds are repeated: [0, 1, 0]; name each seed once",
    ),
    "negative seed": (
        changed(("[0]", "[0, -1]")),
        "spec.yaml:2:12: seeds.1: must be greater than or equal to 0, not -1",
    ),
    "no seed": (changed(("[0]", "[]")), "spec.yaml:2:8: seeds: must have at least 1 item(s), not []"),
    "repeated metric": (
        changed(("network_calls", "parameters")),
        "spec.yaml:13:31: metrics.1: a second metric is called 'parameters'; give it its own 'label'",
    ),
    "repeated label": (
        changed(("network_calls", "network_calls, label: parameters")),
        "spec.yaml:13:31: metrics.1: a second metric is called 'parameters'; give it its own 'label'",
    ),
    "repeated loss": (
        changed(("entropy, weight: 0.1", "nll")),
        "spec.yaml:11:5: objective.1: a second loss 'nll'; name each loss once",
    ),
    "a warm start without a loss for the experts": (
        changed(("  - {type: nll}\n", ""), ("{steps: 4}", "{steps: 4, warm_start: 0.5}")),
        "spec.yaml:10:3: objective: the experts learn from no term, all are about the gate; add one: {type: nll}",
    ),
    "name that is a path": (
        changed(("small", "../small")),
        "spec.yaml:1:7: name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$, not '../small'",
    ),
    "empty name": (
        changed(("small", "''")),
        "spec.yaml:1:7: name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$, not ''",
    ),
    "name of 200 letters": (
        changed(("small", "a" * 200)),
        f"spec.yaml:1:7: name: String must have at most 100 characters, not '{'a' * 59} ...",
    ),
    "duplicate key": (
        changed(("seeds: [0]", "seeds: [0]\nname: other")),
        "spec.yaml:3:1: name: duplicate key 'name'; the first is at spec.yaml:1:1; keep one of them",
    ),
    "duplicate key in a section": (
        changed(("{steps: 4}", "{steps: 4, steps: 5}")),
        "spec.yaml:14:22: training.steps: duplicate key 'steps'; the first is at spec.yaml:14:12; keep one of them",
    ),
    "a number as key": (SPEC + "1: 2\n", "spec.yaml:15:1: a key is a word, not '1'"),
    "a list as key": (SPEC + "[1, 2]: 3\n", "spec.yaml:15:1: a key is a word, not a list or a mapping"),
    "merge key": (
        changed(("training: {steps: 4}", "training: &t {steps: 4}\nevaluation: {<<: *t}")),
        "spec.yaml:15:14: evaluation: merge keys (<<) are not supported; write the keys out, or use 'base'",
    ),
    "python object": (
        changed(("small", "!!python/object/apply:os.system ['true']")),
        "spec.yaml:1:7: name: the tag tag:yaml.org,2002:python/object/apply:os.system is not supported; "
        "write a plain value, list or mapping",
    ),
    "python name": (
        changed(("small", "!!python/name:os.system")),
        "spec.yaml:1:7: name: the tag tag:yaml.org,2002:python/name:os.system is not supported; "
        "write a plain value, list or mapping",
    ),
    "bytes": (
        changed(("small", "!!binary aGVsbG8=")),
        "spec.yaml:1:7: name: the tag tag:yaml.org,2002:binary is not supported; write a plain value, list or mapping",
    ),
    "a value against its tag": (
        changed(("steps: 4", "steps: !!bool maybe")),
        "spec.yaml:14:19: training.steps: not a plain value: 'maybe'",
    ),
    "not YAML": ("name: [a\n", "spec.yaml:2:1: not YAML: expected ',' or ']', but got '<stream end>'"),
    "a tab": ("name:\n\t- a\n", "spec.yaml:2:1: not YAML: found character '\\t' that cannot start any token"),
    "two documents": ("name: a\n---\nname: b\n", "spec.yaml:2:1: not YAML: but found another document"),
    "a list": ("- a\n", "spec.yaml:1:1: a spec is a mapping of sections, this file is a list"),
    "one word": ("hello", "spec.yaml:1:1: a spec is a mapping of sections, this file is one value"),
    "empty": ("", "spec.yaml:1:1: a spec is a mapping of sections, this file is empty"),
    "a comment only": ("# later\n", "spec.yaml:1:1: a spec is a mapping of sections, this file is empty"),
    "not UTF-8": (b"name: \xff\n", "spec.yaml: not a text file in UTF-8 (byte 6); a spec is YAML text"),
    "null byte": (
        "name: a\0b\n",
        "spec.yaml: not YAML: unacceptable character #x0000: special characters are not allowed "
        'in "<unicode string>", position 7',
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_with_its_place_and_mend(errors, text, expected):
    assert errors(text) == [expected]


def test_a_missing_file_is_named(registry, tmp_path):
    with pytest.raises(InputError) as caught:
        load_spec(tmp_path / "none.yaml", registry)
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such spec file; specs/ holds examples"


def test_a_folder_is_no_spec_file(registry, tmp_path):
    with pytest.raises(InputError) as caught:
        load_spec(tmp_path, registry)
    assert str(caught.value) == f"{tmp_path}: this is a folder, not a spec file"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_reported(registry, name):
    with pytest.raises(InputError, match="cannot be read"):
        load_spec(name, registry)


# --- all mistakes at once ---------------------------------------------------------------------------------------------


def test_all_mistakes_are_reported_once_from_top_to_bottom(errors):
    text = changed(
        ("[0]", "[0, 0]"),
        ("{type: linear}", "{type: linaer}"),
        ("copies: 2", "copies: 2, chanels: 8"),
        ("{type: softmax}", "{type: top_k, k: 3}"),
        ("0.1", "-1"),
        ("network_calls", "parameters"),
        ("steps: 4", "steps: -4, batch: 2"),
    )
    assert [line.split(": ")[:2] for line in errors(text)] == [
        ["spec.yaml:2:8", "seeds"],
        ["spec.yaml:5:18", "schedule.type"],
        ["spec.yaml:7:29", "experts.0.chanels"],
        ["spec.yaml:11:29", "objective.1.weight"],
        ["spec.yaml:13:31", "metrics.1"],
        ["spec.yaml:14:19", "training.steps"],
        ["spec.yaml:14:23", "training.batch"],
    ]


def test_what_does_not_fit_together_is_reported_beside_other_mistakes(errors):
    lines = errors(changed(("{type: softmax}", "{type: top_k, k: 3}"), ("steps: 4", "steps: -4")))
    assert [line.split(": ")[1] for line in lines] == ["gate.k", "training.steps"]


def test_a_broken_gate_is_not_also_called_missing(errors):
    assert len(errors(changed(("{type: softmax}", "{type: sofmax}")))) == 1


def test_a_report_is_short_even_when_the_wrong_value_is_long(errors):
    (line,) = errors(changed(("small", "[" + "x, " * 5000 + "x]")))
    assert len(line) < 200


# --- files that would eat the machine ---------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
RUNAWAY = {
    "billion laughs": LAUGHS,
    "list in itself": "name: &a [*a]\n",
    "mapping in itself": "&a\nname: *a\n",
    "twice in itself": "name: &a [*a, *a]\n",
    "nested 60 deep": "name: " + "[" * 60 + "]" * 60,
    "nested 3000 deep": "name: " + "[" * 3000 + "]" * 3000,
    "nested mappings": "name: " + "{a: " * 1000 + "1" + "}" * 1000,
}


@pytest.mark.parametrize("text", RUNAWAY.values(), ids=RUNAWAY)
@pytest.mark.timeout(60)  # without the limits a runaway file takes hours, or all memory
def test_a_runaway_file_is_refused(errors, text):
    lines = errors(text)
    assert len(lines) == 1
    assert "expands to more than 10,000 values or 40 levels" in lines[0] or "nested deeper than the 40" in lines[0]


def test_a_harmless_alias_is_allowed(load):
    spec = load(changed(("{steps: 4}", "{steps: &n 4, log_every: *n}")))
    assert spec.training.log_every == 4


# --- base -------------------------------------------------------------------------------------------------------------


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


# --- --set ------------------------------------------------------------------------------------------------------------


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
    "experts.1.channels=8": "--set experts.1.channels=8: experts: '1' is no item of this list; its items are 0 .. 0",
    "experts.-1.channels=8": "--set experts.-1.channels=8: experts: '-1' is no item of this list; its items are 0 .. 0",
    "experts.²=8": "--set experts.²=8: experts: '²' is no item of this list; its items are 0 .. 0",
    "seeds.1=4": "--set seeds.1=4: seeds: '1' is no item of this list; its items are 0 .. 0",
    "name.x=1": "--set name.x=1: name: is the value 'small', it has no key 'x'",
    "training.steps=x": "--set training.steps=x: training.steps: must be a whole number, not 'x'",
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


# --- any text at all --------------------------------------------------------------------------------------------------

MARKS = ["\n", "\n  ", "- ", ": ", "&a ", "*a", "!!str ", "!x ", "<<: ", "? ", "| ", "> ", "'", '"', "{", "}", "[", "]"]
ODD = [
    "---\n",
    "%YAML 9\n",
    "0x",
    "1_0",
    "~",
    "type: ",
    ".inf",
    "2020-13-45",
    "\t",
    "\x00",
    "🦄: ",
    "base: spec.yaml\n",
]
PIECES = st.sampled_from([*SPEC.splitlines(keepends=True), *SPEC.split(), *MARKS, *ODD, "9" * 30])
NESTED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["unet", "softmax"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "k", "steps"]), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from([*TOP_KEYS.split(", "), "base", "other"]), NESTED, max_size=4).map(
    lambda data: yaml.safe_dump({**yaml.safe_load(SPEC), **data})
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.text() | st.lists(PIECES, max_size=40).map("".join) | FIELDS, st.lists(st.text(), max_size=2))
@example(SPEC, ["experts.٣=1"])
@example("name: =\n", [])
@example("name: 2020-13-45\n", [])
@example("name: 190:20:30\n", [])
@pytest.mark.slow
def test_any_text_loads_or_raises_a_moeframe_error(tmp_path, registry, text, overrides):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        spec = load_spec(path, registry, overrides)
    except MoeframeError:
        return
    assert spec.hash()


def test_places_point_at_the_text_of_each_key_and_value(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    document = read_document(path)
    lines = SPEC.split("\n")
    for places in (document.keys, document.values):
        for spot, place in places.items():
            line, column = map(int, place.rsplit(":", 2)[1:])
            rest = lines[line - 1][column - 1 :]
            if places is document.keys:
                assert rest.startswith(f"{spot[-1]}:")
            elif spot:
                value = document.data
                for key in spot:
                    value = value[key]
                assert isinstance(value, dict | list) or rest.startswith(str(value))


def test_a_spec_error_carries_each_problem(load):
    with pytest.raises(SpecError) as caught:
        load(changed(("steps: 4", "steps: -4"), ("[0]", "[0, 0]")))
    assert [problem.dotted_path for problem in caught.value.problems] == ["seeds", "training.steps"]
    assert caught.value.exit_status == 2
