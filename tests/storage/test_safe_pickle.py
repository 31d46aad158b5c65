"""Pickles are read as data: a name that the allow-list lacks ends the reading, and nothing named is executed."""

import io
import os
import pickle
import re
from collections import OrderedDict

import pytest

from moeframe.storage.safe_pickle import AllowList, RefusedPickleError, UnreadablePickleError, read_pickle

NOTHING = AllowList(functions={})


class Record:
    """What a reader keeps of an object."""

    __slots__ = ("state",)

    def __setstate__(self, state):
        self.state = state


class Point:
    """An object with attributes."""

    def __init__(self):
        self.x = 3


class Runs:
    """Pickles as a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def read(content, allowed, **settings):
    return read_pickle(io.BytesIO(content), allowed, **settings)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_with_an_empty_allow_list(protocol):
    value = {"a": [1, 2.5, None, True], "b": ("text", b"bytes" if protocol > 2 else "")}
    assert read(pickle.dumps(value, protocol), NOTHING) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_program_in_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps({"a": Runs(f"touch {mark}")}, protocol)
    with pytest.raises(RefusedPickleError, match=rf"^{os.name}\.system$"):
        read(content, NOTHING)
    assert not mark.exists()


def test_an_allowed_name_calls_ours_in_its_place(tmp_path):
    mark = tmp_path / "ran"
    allowed = AllowList(functions={f"{os.name}.system": lambda command: ("seen", command)})
    assert read(pickle.dumps(Runs(f"touch {mark}")), allowed) == ("seen", f"touch {mark}")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "builtins.__import__", "os.system", "functools.partial"]
)
def test_names_close_to_the_allowed_ones_are_refused(name):
    module, function = name.rsplit(".", 1)
    allowed = AllowList({"builtins.evaluate": len}, {"collections.OrderedDict": dict}, re.compile(r"builtins\.ev"))
    with pytest.raises(RefusedPickleError, match=f"^{re.escape(name)}$"):
        read(f"c{module}\n{function}\n(tR.".encode(), allowed)


def test_a_dotted_name_does_not_reach_into_an_allowed_one():
    content = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    with pytest.raises(RefusedPickleError, match=r"^collections\.OrderedDict\.__init__$"):
        read(content, AllowList({}, {"collections.OrderedDict": dict}))


def test_a_container_takes_the_place_of_another():
    value = read(pickle.dumps(OrderedDict(a=1)), AllowList({}, {"collections.OrderedDict": dict}))
    assert type(value) is dict
    assert value == {"a": 1}


def test_objects_of_allowed_classes_become_records():
    old_protocols = {"copy_reg._reconstructor": lambda cls, *_: cls(), "__builtin__.object": object}
    allowed = AllowList(old_protocols, classes=re.compile(r".*\.Point"), record=Record)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        point = read(pickle.dumps(Point(), protocol), allowed)
        assert isinstance(point, Record)
        assert not isinstance(point, Point)
        assert (type(point).__name__, point.state) == ("Point", {"x": 3})


def test_a_pickle_cannot_change_what_takes_the_place_of_a_function():
    content = b"cbuiltins\nlen\n}(Vx\nK\x01ub."
    with pytest.raises(RefusedPickleError, match=r"^a change of builtins\.len$"):
        read(content, AllowList({"builtins.len": len}))


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", pickle.dumps(list(range(100)))[:-20]])
def test_bytes_that_are_no_pickle_say_the_cause(content):
    with pytest.raises(UnreadablePickleError, match=r"^\w+: "):
        read(content, NOTHING)


def test_texts_of_python_2_are_read_in_the_given_encoding():
    content = b"U\x02\xc3\xa9."
    assert read(content, NOTHING, encoding="bytes") == b"\xc3\xa9"
    with pytest.raises(UnreadablePickleError, match="UnicodeDecodeError"):
        read(content, NOTHING)


def test_the_repository_has_one_unpickler():
    from pathlib import Path

    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for folder in ("moeframe", "plugins")
        for path in sorted((root / folder).rglob("*.py"))
        if re.search(r"\bpickle\.(Unpickler|loads?)\b", path.read_text())
    ]
    assert found == ["moeframe/storage/safe_pickle.py"]
