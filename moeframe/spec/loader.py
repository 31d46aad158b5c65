"""Spec files: YAML in, a RunSpec or every error with its file:line:column out.

`base: other.yaml` (one level, relative to the file) is overridden by the file, and both by `--set path=value`.
Mappings are merged key by key, except where `type` changes: then the section is replaced. Lists are replaced.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moeframe.errors import InputError, SpecError, SpecPath, SpecProblem
from moeframe.plugin.registry import Registry
from moeframe.spec.binding import bind
from moeframe.spec.messages import UnlocatedProblemsError, shown
from moeframe.spec.renamed_keys import rename_keys, warn_renamed
from moeframe.spec.schema import RunSpec

MAX_NODES = 10_000
MAX_DEPTH = 40
YAML_TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")

PlaceOf = Callable[[yaml.Mark | None], str]
"""Names the place of a mark in a text; None for the entire text."""


@dataclass
class Document:
    """Plain data and where each key and value of it was written."""

    data: dict[str, Any]
    keys: dict[SpecPath, str] = field(default_factory=dict)
    values: dict[SpecPath, str] = field(default_factory=dict)

    def place(self, path: SpecPath, *, about_key: bool) -> str:
        """Place of the nearest written ancestor of `path`."""
        first, second = (self.keys, self.values) if about_key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            found = first.get(path[:length]) or second.get(path[:length])
            if found:
                return found
        return ""

    def locate(self, problem: SpecProblem) -> SpecProblem:
        """The problem with its place in this document."""
        return problem.at(self.place(problem.path, about_key=problem.about_key))


@dataclass(frozen=True)
class Override:
    """A value that another file sets in a spec: at a dotted path, written at a place."""

    path: str
    value: Any
    place: str


def load_spec(path: str | Path, registry: Registry, overrides: Sequence[str | Override] = ()) -> RunSpec:
    """Read, merge and validate a spec file. Raises SpecError with every problem of the file."""
    document = read_document(Path(path))
    if is_study(document):
        raise InputError(f"{path}: is a study file; use `moeframe study {path}`, or `moeframe validate {path}`")
    problems: list[SpecProblem] = []
    for override in overrides:
        try:
            _apply_override(document, override)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    for old, new in rename_keys(document.data):
        warn_renamed(document.place(old, about_key=True), old, new)
        document.keys.setdefault(new, document.place(old, about_key=True))
        document.values.setdefault(new, document.place(old, about_key=False))
    try:
        spec = bind(document.data, registry)
    except UnlocatedProblemsError as error:
        raise SpecError(sorted(map(document.locate, error.problems), key=_position)) from None
    return spec.located({section: document.place((section,), about_key=True) for section in document.data})


def is_study(document: Document) -> bool:
    """Whether it holds variants of a spec rather than a spec."""
    return "variants" in document.data and "spec" in document.data


def read_document(path: Path) -> Document:
    """The file merged over its `base`, not yet validated."""
    document = _read_one(path)
    if "base" not in document.data:
        return document
    base_name = document.data.pop("base")
    place = document.values[("base",)]
    if not isinstance(base_name, str):
        raise SpecError([SpecProblem(("base",), f"must be the name of a file, not {shown(base_name)}", place=place)])
    base_path = path.parent / base_name
    if not base_path.is_file():
        raise SpecError(
            [SpecProblem(("base",), f"no file {base_path}; base is relative to the file that names it", place=place)]
        )
    base = _read_one(base_path)
    if "base" in base.data:
        raise SpecError(
            [
                SpecProblem(
                    ("base",), f"{base_path} has a base itself; only one level is allowed", place=base.values[("base",)]
                )
            ]
        )
    _merge(base, document, (), base.data, document.data)
    base.values[()] = document.values[()]
    return base


def _merge(target: Document, source: Document, path: SpecPath, below: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        here = (*path, key)
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type"):
            _merge(target, source, here, old, value)
        else:
            below[key] = value
            for places, new in ((target.keys, source.keys), (target.values, source.values)):
                for stale in [known for known in places if known[: len(here)] == here]:
                    del places[stale]
                places.update({known: place for known, place in new.items() if known[: len(here)] == here})


# --- reading one file -------------------------------------------------------------------------------------------------


def _read_one(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such spec file; `moeframe init` lists examples") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a spec file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 (byte {error.start}); a spec is YAML text") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{str(path)!r}: cannot be read: {getattr(error, 'strerror', error)}") from None
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Document:
    def place_of(mark: yaml.Mark | None) -> str:
        return f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source

    node = _compose(text, place_of)
    if not isinstance(node, yaml.MappingNode):
        found = {yaml.SequenceNode: "a list", yaml.ScalarNode: "one value"}.get(type(node), "empty")
        raise SpecError(
            [SpecProblem((), f"a spec is a mapping of sections, this file is {found}", place=f"{source}:1:1")]
        )
    reader = _Reader(place_of)
    data = reader.plain(node, ())
    if reader.problems:
        raise SpecError(reader.problems)
    return Document(data, reader.keys, reader.values)


def _compose(text: str, place_of: PlaceOf) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        place, what = place_of(error.problem_mark or error.context_mark), error.problem or error.context
        raise SpecError([SpecProblem((), f"not YAML: {what}", place=place)]) from None
    except yaml.YAMLError as error:
        raise SpecError([SpecProblem((), f"not YAML: {' '.join(str(error).split())}", place=place_of(None))]) from None
    except RecursionError:
        raise SpecError(
            [SpecProblem((), f"nested deeper than the {MAX_DEPTH} levels allowed", place=place_of(None))]
        ) from None


class _Reader:
    """Convert YAML nodes to plain data; record places, report duplicate keys and runaway aliases."""

    def __init__(self, place_of: PlaceOf):
        self._place_of = place_of
        self.keys: dict[SpecPath, str] = {}
        self.values: dict[SpecPath, str] = {}
        self.problems: list[SpecProblem] = []
        self._constructor = yaml.SafeLoader("")
        self._n_nodes = 0

    def plain(self, node: yaml.Node, path: SpecPath) -> Any:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            what = f"expands to more than {MAX_NODES:,} values or {MAX_DEPTH} levels"
            raise SpecError(
                [
                    SpecProblem(
                        (), f"{what}; remove aliases (*name) that repeat or contain themselves", place=self._place(node)
                    )
                ]
            )
        self.values[path] = self._place(node)
        tag = node.tag.removeprefix(YAML_TAG)
        if tag not in PLAIN_TAGS:
            self._report(node, path, f"the tag {node.tag} is not supported; write a plain value, list or mapping")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]
        if tag == "timestamp":
            return node.value  # what looks like a date is a word here
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError) as error:
            self._report(node, path, f"not a plain value: {getattr(error, 'problem', None) or error}")
            return None
        if isinstance(value, int) and abs(value) >= 2**63:
            self._report(node, path, "this integer is beyond 64 bits")
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, path: SpecPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key_node.tag == f"{YAML_TAG}merge":
                self._report(key_node, path, "merge keys (<<) are not supported; write the keys out, or use 'base'")
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{YAML_TAG}str":
                found = repr(key) if isinstance(key, str) else "a list or a mapping"
                self._report(key_node, path, f"a key is a word, not {found}")
                continue
            here = (*path, key)
            if key in result:
                self._report(
                    key_node, here, f"duplicate key '{key}'; the first is at {self.keys[here]}; keep one of them"
                )
                continue
            self.keys[here] = self._place(key_node)
            result[key] = self.plain(value_node, here)
        return result

    def _place(self, node: yaml.Node) -> str:
        return self._place_of(node.start_mark)

    def _report(self, node: yaml.Node, path: SpecPath, message: str) -> None:
        self.problems.append(SpecProblem(path, message, place=self._place(node)))


# --- --set ------------------------------------------------------------------------------------------------------------


def _apply_override(document: Document, override: str | Override) -> None:
    if isinstance(override, Override):
        _set(document, override.path.split("."), override.value, override.place)
        return
    name, separator, text = override.partition("=")
    place = f"--set {override}"
    parts = [part.strip() for part in name.split(".")]
    if not separator or not all(parts):
        raise SpecError([SpecProblem((), "write it as path=value, for example --set training.steps=500", place=place)])
    if parts[0] == "base":
        raise SpecError([SpecProblem(("base",), "can only be written in the spec file", place=place)])
    _set(document, parts, _parse_value(text, place), place)


def _set(document: Document, parts: list[str], value: Any, place: str) -> None:
    container: Any = document.data
    path: SpecPath = ()
    for part in parts[:-1]:
        key = _key(container, part, path, place)
        path = (*path, key)
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
            _move(document, path, place)
        container = container[key]
    key = _key(container, parts[-1], path, place)
    if key == "type" and isinstance(container, dict) and container.get("type") != value:
        container.clear()
    container[key] = value
    _move(document, (*path, key), place)


def _move(document: Document, path: SpecPath, place: str) -> None:
    """Record that the value at `path` was written at `place`."""
    for places in (document.keys, document.values):
        for stale in [known for known in places if known[: len(path)] == path]:
            del places[stale]
        places[path] = place


def _key(container: Any, part: str, path: SpecPath, place: str) -> str | int:
    if isinstance(container, dict):
        return part
    if isinstance(container, list):
        if part in map(str, range(len(container))):
            return int(part)
        items = f"its items are 0 .. {len(container) - 1}" if container else "it is empty"
        raise SpecError([SpecProblem(path, f"'{part}' is not in this list; {items}", place=place)])
    raise SpecError([SpecProblem(path, f"is the value {shown(container)}, it has no key '{part}'", place=place)])


def _parse_value(text: str, place: str) -> Any:
    node = _compose(text, lambda _: place)
    if node is None:
        return None
    reader = _Reader(lambda _: place)
    value = reader.plain(node, ())
    if reader.problems:
        raise SpecError(reader.problems)
    return value


def _position(problem: SpecProblem) -> tuple[str, int, int]:
    """Order of the problems in a report: by file, then from top to bottom."""
    written = re.fullmatch(r"(.*):(\d+):(\d+)", problem.place, re.DOTALL)
    return (written[1], int(written[2]), int(written[3])) if written else (problem.place, 0, 0)
