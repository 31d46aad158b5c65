"""Spec files: YAML in, a RunSpec or every error with its file:line:column out.

`base: other.yaml` (one level, relative to the file) is overridden by the file, and both by `--set path=value`.
Mappings are merged key by key, except where `type` changes: then the whole section is replaced. Lists are replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moeframe.errors import InputError, Problem, SpecError
from moeframe.registry import Registry
from moeframe.spec import Flaw, FlawsError, RunSpec, bind
from moeframe.spec import Path as SpecPath

MAX_NODES = 20_000
MAX_DEPTH = 40


@dataclass
class Document:
    """Plain data and where each key and value of it was written."""

    data: dict[str, Any]
    keys: dict[SpecPath, str] = field(default_factory=dict)
    values: dict[SpecPath, str] = field(default_factory=dict)

    def place(self, path: SpecPath, *, about_key: bool) -> str:
        """Where the nearest written ancestor of `path` stands."""
        first, second = (self.keys, self.values) if about_key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            found = first.get(path[:length]) or second.get(path[:length])
            if found:
                return found
        return ""


def load_spec(path: str | Path, registry: Registry, overrides: Sequence[str] = ()) -> RunSpec:
    """Read, merge and validate a spec file. Raises SpecError with every problem of the file."""
    document = read_document(Path(path))
    for override in overrides:
        _apply_override(document, override)
    try:
        return bind(document.data, registry)
    except FlawsError as error:
        raise SpecError([_problem(document, flaw) for flaw in error.flaws]) from None


def read_document(path: Path) -> Document:
    """The file merged over its `base`, not yet validated."""
    document = _read_one(path)
    if "base" not in document.data:
        return document
    base_name = document.data.pop("base")
    place = document.values[("base",)]
    if not isinstance(base_name, str):
        raise SpecError([Problem(place, "base", f"base is the name of a file, not {base_name!r}")])
    base_path = path.parent / base_name
    if not base_path.is_file():
        raise SpecError([Problem(place, "base", f"no file {base_path}; base is relative to the file that names it")])
    base = _read_one(base_path)
    if "base" in base.data:
        raise SpecError(
            [Problem(base.values[("base",)], "base", f"{base_path} has a base itself; only one level is allowed")]
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
        raise InputError(f"{path}: no such spec file; specs/ holds examples") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a spec file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 (byte {error.start}); a spec is YAML text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Document:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecError([Problem(place, "", f"not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise SpecError([Problem(source, "", f"not YAML: {' '.join(str(error).split())}")]) from None
    if not isinstance(node, yaml.MappingNode):
        found = {yaml.SequenceNode: "a list", yaml.ScalarNode: "one value"}.get(type(node), "empty")
        raise SpecError([Problem(f"{source}:1:1", "", f"a spec is a mapping of sections, this file is {found}")])
    reader = _Reader(source)
    data = reader.plain(node, ())
    if reader.problems:
        raise SpecError(reader.problems)
    return Document(data, reader.keys, reader.values)


class _Reader:
    """Turns YAML nodes into plain data, noting places, duplicate keys and runaway aliases."""

    def __init__(self, source: str):
        self.source = source
        self.keys: dict[SpecPath, str] = {}
        self.values: dict[SpecPath, str] = {}
        self.problems: list[Problem] = []
        self._constructor = yaml.SafeLoader("")
        self._n_nodes = 0

    def plain(self, node: yaml.Node, path: SpecPath) -> Any:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            what = f"expands to more than {MAX_NODES:,} values or {MAX_DEPTH} levels"
            raise SpecError(
                [Problem(self._place(node), "", f"{what}; remove aliases (*name) that repeat or contain themselves")]
            )
        self.values[path] = self._place(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or str(error)
            self._report(node, path, f"not a plain value: {problem}")
            return None

    def _mapping(self, node: yaml.MappingNode, path: SpecPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self._report(
                    key_node, path, f"keys are words, not {key!r}; merge keys (<<) are not supported, use 'base'"
                )
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
        return f"{self.source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _report(self, node: yaml.Node, path: SpecPath, message: str) -> None:
        self.problems.append(Problem(self._place(node), dotted(path), message))


def dotted(path: SpecPath) -> str:
    """A path as users write it.

    >>> dotted(("experts", 0, "channels"))
    'experts.0.channels'
    """
    return ".".join(str(part) for part in path)


# --- --set ------------------------------------------------------------------------------------------------------------


def _apply_override(document: Document, override: str) -> None:
    name, separator, text = override.partition("=")
    place = f"--set {override}"
    if not separator or not name:
        raise SpecError([Problem(place, "", "write it as path=value, for example --set training.steps=500")])
    value = _parse_value(text, place)
    parts = name.split(".")
    container: Any = document.data
    path: SpecPath = ()
    for part in parts[:-1]:
        key = _key(container, part, path, place)
        path = (*path, key)
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
        container = container[key]
    key = _key(container, parts[-1], path, place)
    if key == "type" and isinstance(container, dict) and container.get("type") != value:
        container.clear()
    container[key] = value
    here = (*path, key)
    for places in (document.keys, document.values):
        for stale in [known for known in places if known[: len(here)] == here]:
            del places[stale]
        places[here] = place


def _key(container: Any, part: str, path: SpecPath, place: str) -> str | int:
    if isinstance(container, dict):
        return part
    if isinstance(container, list):
        if part.isdigit() and int(part) < len(container):
            return int(part)
        last = len(container) - 1
        raise SpecError([Problem(place, dotted(path), f"'{part}' is no item of this list; items are 0 .. {last}")])
    raise SpecError([Problem(place, dotted(path), f"is the value {container!r}, it has no key '{part}'")])


def _parse_value(text: str, place: str) -> Any:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SpecError(
            [Problem(place, "", f"the value is not YAML: {getattr(error, 'problem', None) or error}")]
        ) from None
    if node is None:
        return None
    reader = _Reader(place)
    value = reader.plain(node, ())
    if reader.problems:
        raise SpecError(reader.problems)
    return value


def _problem(document: Document, flaw: Flaw) -> Problem:
    return Problem(document.place(flaw.path, about_key=flaw.about_key), dotted(flaw.path), flaw.message)
