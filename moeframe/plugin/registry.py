"""Registry: name -> component class, per kind, with suggestions and the providers behind each name."""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from moeframe.errors import PluginError
from moeframe.interfaces.component import Component
from moeframe.plugin.discovery import KINDS, BrokenPlugin, EntryPoint, LoadedPlugins, Provided, load_plugins
from moeframe.plugin.kinds import ALL_KINDS

C = TypeVar("C", bound=Component)

SINGULAR = {kind.plural: kind.singular for kind in ALL_KINDS}
"""Plural name of a kind to its name in messages."""


class Registry:
    """The installed components. A name that two plugins claim belongs to neither: using it is an error naming both."""

    def __init__(self, loaded: LoadedPlugins):
        self.broken: tuple[BrokenPlugin, ...] = loaded.broken
        self._claims: dict[str, dict[str, list[Provided]]] = {kind: defaultdict(list) for kind in KINDS}
        for provided in loaded.provided:
            self._claims[provided.component.KIND][provided.component.name()].append(provided)

    @classmethod
    def installed(cls, entry_points: Iterable[EntryPoint] | None = None) -> "Registry":
        """Return the registry of this environment, or of the given entry points."""
        return cls(load_plugins(entry_points))

    def names(self, kind: str) -> list[str]:
        """Usable names of a kind, sorted."""
        return sorted(name for name, claims in self._claims[kind].items() if len(claims) == 1)

    def components(self, kind: str) -> list[Provided]:
        """Usable components of a kind, sorted by name."""
        return [self._claims[kind][name][0] for name in self.names(kind)]

    def get(self, base: type[C], name: str) -> type[C]:
        """The component of kind `base` called `name`. Raises PluginError, saying what to do, when there is none."""
        if name not in self.names(base.KIND):
            raise PluginError(self.why_not(base.KIND, name))
        component = self._claims[base.KIND][name][0].component
        assert issubclass(component, base)
        return component

    def conflicts(self) -> list[str]:
        """One sentence per name that two plugins claim."""
        return [
            self.why_not(kind, name) for kind in KINDS for name, claims in self._claims[kind].items() if len(claims) > 1
        ]

    def why_not(self, kind: str, name: str) -> str:
        """Why `name` cannot be used: the nearest name, what is installed and which plugins are broken."""
        claims = self._claims[kind].get(name, [])
        if len(claims) > 1:
            owners = sorted({str(claim.provider) for claim in claims})
            if len(owners) == 1:
                times = f"is supplied {len(claims)} times by {owners[0]}"
                return f"{SINGULAR[kind]} '{name}' {times}; report it to its authors"
            return f"{SINGULAR[kind]} '{name}' is supplied by {' and by '.join(owners)}; uninstall one of them"
        installed = self.names(kind)
        parts = [f"unknown {SINGULAR[kind]} '{name}'", *did_you_mean(name, installed)]
        parts.append(f"installed: {', '.join(installed)}" if installed else f"no {SINGULAR[kind]} is installed")
        parts += [f"a plugin that may supply it is broken: {broken}" for broken in self.broken]
        return "; ".join(parts)


def did_you_mean(word: str, choices: Iterable[str]) -> list[str]:
    """At most one suggestion, as a list so that it can be left out of a sentence.

    >>> did_you_mean("sofmax", ["softmax", "uniform"])
    ["did you mean 'softmax'?"]
    >>> did_you_mean("zzz", ["softmax"])
    []
    """
    return [f"did you mean '{match}'?" for match in difflib.get_close_matches(word, list(choices), n=1)]
