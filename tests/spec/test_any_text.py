"""Any text loads or raises one of our errors, and none eats the machine."""

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from spec_text import SPEC, TOP_KEYS, changed

from moeframe.errors import MoeframeError, SpecError
from moeframe.spec.loader import load_spec, read_document

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
