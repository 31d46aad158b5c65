"""One pluggy hook per kind: a plugin returns the component classes that it supplies."""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import pluggy

from moeframe.plugin.kinds import ALL_KINDS, Kind

if TYPE_CHECKING:
    from moeframe.interfaces.component import Component

PROJECT = "moeframe"
API_VERSION = 1
"""A plugin may declare `MOEFRAME_API = 1` beside its hooks; one made for another version is skipped with a warning."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Hook = Callable[[], "list[type[Component]]"]


def hook_of(kind: Kind) -> Hook:
    """The specification of a kind's hook: no arguments, a list of component classes in return."""

    def hook() -> "list[type[Component]]":
        raise AssertionError("pluggy calls implementations, never a specification")

    hook.__name__ = hook.__qualname__ = kind.hook
    hook.__doc__ = f"{kind.plural.capitalize()}: {kind.summary}."
    return hookspec(hook)


HOOKS: dict[str, Hook] = {kind.hook: hook_of(kind) for kind in ALL_KINDS}
"""Name of each hook to its specification."""


def specifications() -> ModuleType:
    """All hooks in a module, as pluggy's `add_hookspecs` takes them."""
    module = ModuleType("moeframe_hooks", "The hooks of moeframe.")
    vars(module).update(HOOKS)
    return module
