"""Find plugins through entry points and files and load them; a broken one is skipped, with the reason.

A broken plugin never stops a run that does not need it, and is never silent.
"""

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import pluggy
from pydantic import PydanticUserError

from moeframe.interfaces.component import Component
from moeframe.plugin.files import PluginFile, line_in, plugin_files
from moeframe.plugin.hookspecs import API_VERSION, PROJECT, specifications
from moeframe.plugin.kinds import ALL_KINDS

KINDS: dict[str, type[Component]] = {kind.plural: kind.load_class() for kind in ALL_KINDS}
"""Plural name, as in the hooks and the plugin folders, to abstract class."""


@runtime_checkable
class EntryPoint(Protocol):
    """The part of importlib.metadata.EntryPoint that loading needs."""

    @property
    def name(self) -> str:
        """Its name in the group."""

    @property
    def dist(self) -> Any:
        """Its distribution."""

    def load(self) -> Any:
        """Import what it names."""


@dataclass(frozen=True)
class Provider:
    """The distribution, or the file, that supplies a plugin."""

    distribution: str
    """Of a file its name."""
    version: str
    """Empty for a file."""
    entry_point: str
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Provided:
    """One component class and who supplies it."""

    component: type[Component]
    provider: Provider


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that failed to load, and why."""

    provider: Provider
    cause: str
    line: int | None = None
    """Of the plugin's file, where the cause has one."""

    def __str__(self) -> str:
        if self.provider.file is not None:
            place = "" if self.line is None else f":{self.line}"
            return f"{self.provider.file}{place}: {self.cause}"
        return f"{self.provider} (entry point '{self.provider.entry_point}'): {self.cause}"


@dataclass(frozen=True)
class LoadedPlugins:
    """Everything that was found."""

    provided: tuple[Provided, ...]
    broken: tuple[BrokenPlugin, ...]


class _BrokenError(Exception):
    """Internal: a plugin breaks a rule; the message is the cause."""


def installed_entry_points() -> Sequence[EntryPoint]:
    """The `moeframe` entry points of every installed distribution, in a stable order, then the plugin files."""
    found = importlib.metadata.entry_points(group=PROJECT)
    ordered = sorted(found, key=lambda point: (point.dist.name if point.dist else "", point.name))
    return [*ordered, *plugin_files()]


def load_plugins(entry_points: Iterable[EntryPoint] | None = None) -> LoadedPlugins:
    """Load each entry point on its own; whatever it raises, SystemExit included, concerns that plugin only."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specifications())
    provided: list[Provided] = []
    broken: list[BrokenPlugin] = []
    for entry_point in installed_entry_points() if entry_points is None else entry_points:
        provider = _provider(entry_point)
        try:
            provided += [Provided(component, provider) for component in _load(manager, entry_point, provider)]
        except (Exception, SystemExit) as error:
            line = None if provider.file is None else line_in(provider.file, error)
            broken.append(BrokenPlugin(provider, _describe(error), line))
    return LoadedPlugins(tuple(provided), tuple(broken))


def _provider(entry_point: EntryPoint) -> Provider:
    if isinstance(entry_point, PluginFile):
        return Provider(entry_point.path.name, "", entry_point.name, entry_point.path)
    dist = entry_point.dist
    return Provider(dist.name if dist else "unknown", dist.version if dist else "?", entry_point.name)


def _load(manager: pluggy.PluginManager, entry_point: EntryPoint, provider: Provider) -> list[type[Component]]:
    plugin = entry_point.load()
    wanted = getattr(plugin, "MOEFRAME_API", API_VERSION)
    if wanted != API_VERSION:
        raise _BrokenError(f"made for plugin API {wanted}, this moeframe has {API_VERSION}; install a matching release")
    name = f"{provider.distribution}:{provider.entry_point}"
    try:
        if manager.register(plugin, name) is None:
            raise _BrokenError("its registration is blocked")
        manager.check_pending()
        return _components(manager, plugin)
    except BaseException:
        if manager.get_plugin(name) is not None:
            manager.unregister(name=name)
        raise


def _components(manager: pluggy.PluginManager, plugin: Any) -> list[type[Component]]:
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise _BrokenError("it implements no moeframe hook; mark a function such as moeframe_gates with @hookimpl")
    components: list[type[Component]] = []
    for caller in callers:
        kind = caller.name.removeprefix(f"{PROJECT}_")
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                components += _checked(caller.name, kind, implementation.function())
    return components


def _checked(hook: str, kind: str, answer: object) -> list[type[Component]]:
    if not isinstance(answer, list):
        raise _BrokenError(f"{hook} returned {type(answer).__name__}, not a list of classes")
    base = KINDS[kind]
    for component in answer:
        if not (isinstance(component, type) and issubclass(component, base)):
            raise _BrokenError(f"{hook} returned {component!r}, which is not a subclass of {base.__name__}")
        if kind != component.KIND:
            raise _BrokenError(f"{component.__name__}.KIND is {component.KIND!r}; leave it as {base.__name__} has it")
        if not (isinstance(component.Config, type) and issubclass(component.Config, base.Config)):
            raise _BrokenError(f"{component.__name__}.Config must be a subclass of {base.__name__}.Config")
        field = component.Config.model_fields["type"]
        if not isinstance(field.default, str) or get_args(field.annotation) != (field.default,):
            raise _BrokenError(f'{component.__name__}.Config needs a name: type: Literal["its_name"] = "its_name"')
        missing = getattr(component, "__abstractmethods__", None)
        if missing:
            raise _BrokenError(f"{component.__name__} does not implement {', '.join(sorted(missing))}")
        if flaw := _schema_flaw(component):
            raise _BrokenError(f"{component.__name__}.Config must hold plain values only: {flaw}")
    return answer


@functools.cache  # a schema takes a millisecond, and a process may load all plugins hundreds of times
def _schema_flaw(component: type[Component]) -> str:
    """Return why the config has no JSON Schema, or an empty text."""
    try:
        component.config_schema()
    except PydanticUserError as error:
        return error.message
    return ""


def _describe(error: BaseException) -> str:
    if isinstance(error, _BrokenError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it called exit({error.code!r}) while it was loaded"
    message = " ".join(str(error).split())
    return message if isinstance(error, pluggy.PluginValidationError) else f"{type(error).__name__}: {message}"
