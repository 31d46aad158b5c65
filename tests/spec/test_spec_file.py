"""Spec files: each mistake is reported once with its place, all of them at once."""

from pathlib import Path

import pytest
from spec_text import SPEC, TOP_KEYS, changed

from moeframe.errors import InputError
from moeframe.spec.loader import load_spec

ROOT = Path(__file__).parents[2]


SPECS = [
    *(path for path in sorted(ROOT.glob("specs/**/*.yaml")) if path.parent.name != "studies"),
    *sorted(ROOT.glob("examples/**/parity.yaml")),
]


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
        "spec.yaml:14:19: training.steps: must be an integer, not 4.5",
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
        "spec.yaml:10:3: objective: no term trains the experts, all concern the gate; add one: {type: nll}",
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
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such spec file; `moeframe init` lists examples"


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
