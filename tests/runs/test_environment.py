"""What a result says of the software and the machine that made it."""

import sys

import pytest

from moeframe.runs import environment


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "of_this_test/inner").mkdir(parents=True)
    for name in ("of_this_test/__init__.py", "of_this_test/inner/__init__.py"):
        (tmp_path / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(environment, "_OWN", ("of_this_test", "not_installed_at_all"))
    yield tmp_path / "of_this_test"
    sys.modules.pop("of_this_test", None)


def test_the_source_hash_follows_every_python_file_and_nothing_else(package):
    taken = environment.source_hash.__wrapped__
    first = taken()
    assert len(first) == 12
    (package / "notes.txt").write_text("nothing that runs")
    assert taken() == first
    (package / "inner/__init__.py").write_text("changed = True\n")
    assert taken() != first


def test_the_environment_names_versions_and_the_device():
    found = environment.describe_environment("cpu")
    assert {"moeframe", "moeframe_source", "python", "torch", "torch_threads"} <= set(found)
    assert found["device"] == "cpu"
    assert found["device_name"]
