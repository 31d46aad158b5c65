"""The planted mistakes of benchmarks/mutations.py can be planted: the list does not rot. The benchmark runs them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from mutations import MUTATIONS, Run, judge  # noqa: E402

sys.path.remove(str(BENCHMARKS))


def test_there_are_more_than_twenty_mistakes_of_different_names():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20
    assert len({(mutation.file, mutation.old, mutation.new) for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", [pytest.param(mutation, id=mutation.name) for mutation in MUTATIONS])
def test_a_mistake_has_one_place_in_a_file_that_still_compiles_and_tests_that_exist(mutation):
    sound = (ROOT / mutation.file).read_text()
    assert sound.count(mutation.old) == 1
    compile(sound.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert mutation.tests
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"\ndef {name.partition('[')[0]}(" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    ("status", "failed", "message", "outcome"),
    [
        (0, None, "", "survived"),
        (1, "tests/a.py::test_b", "assert 0.3 < 0.1", "killed"),
        (1, "tests/a.py::test_b", "", "killed"),
        (1, "tests/a.py::test_b", "NameError: name 'x' is not defined", "stops with NameError, which shows in any use"),
        (1, None, "", "no test ran to its end: ERROR in a fixture"),
        (4, None, "", "no test ran to its end: ERROR in a fixture"),
    ],
)
def test_only_a_test_that_fails_kills_a_mistake(status, failed, message, outcome):
    assert judge(Run(status, failed, message, "ERROR in a fixture")) == outcome
