"""Plain data bound to what is installed: each section validated by the Config of the component that its `type` names.

A plugin's settings are checked as strictly as our own, and a broken plugin cannot spoil the spec of a run that does not
name it. The parts of a component that is made of others are read in the same way, at any depth.
"""

from typing import Any

from pydantic import ValidationError

from moeframe.interfaces.component import Component
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.registry import Registry
from moeframe.spec.conflicts import conflicts
from moeframe.spec.messages import Flaw, FlawsError, Path, flaws_of, shown
from moeframe.spec.schema import LIST_SECTIONS, OPTIONAL_SECTIONS, SECTIONS, RunSpec


def bind(data: dict[str, Any], registry: Registry) -> RunSpec:
    """Validate plain data against the installed components. Raises FlawsError with every flaw at once."""
    binder = _Binder(registry)
    bound = binder.bind(data)
    flaws = list(binder.flaws)
    spec = None
    try:
        spec = RunSpec.model_validate(bound)
    except ValidationError as error:
        flaws += [flaw for flaw in flaws_of(error, RunSpec) if not binder.covers(flaw.path)]
    flaws += [flaw for flaw in conflicts(bound, spec, registry) if not binder.covers(flaw.path)]
    if spec is None or flaws:
        raise FlawsError(flaws)
    return spec


class _Binder:
    """Replaces each component section by its validated Config and collects what is wrong."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.flaws: list[Flaw] = []

    def covers(self, path: Path) -> bool:
        """Whether a flaw at or above this path is known already."""
        return bool(path) and any(path[: len(f.path)] == f.path or f.path[: len(path)] == path for f in self.flaws)

    def bind(self, data: dict[str, Any]) -> dict[str, Any]:
        bound = dict(data)
        for section, kind in SECTIONS.items():
            if section in bound and not (section in OPTIONAL_SECTIONS and bound[section] is None):
                bound[section] = self._component((section,), kind, bound[section])
        for section, kind in LIST_SECTIONS.items():
            items = bound.get(section)
            if isinstance(items, list):
                bound[section] = [self._component((section, i), kind, item) for i, item in enumerate(items)]
        return bound

    def _component(self, path: Path, kind: str, value: Any) -> Any:
        installed = ", ".join(self.registry.names(kind)) or "none"
        if not isinstance(value, dict):
            self.flaws.append(
                Flaw(path, f"must be a mapping with a 'type', not {shown(value)}; installed {kind}: {installed}")
            )
            return None
        if "type" not in value:
            self.flaws.append(Flaw(path, f"missing key 'type'; installed {kind}: {installed}"))
            return None
        name = value["type"]
        if not isinstance(name, str):
            words = f"must be the name of a component, not {shown(name)}; installed {kind}: {installed}"
            self.flaws.append(Flaw((*path, "type"), words))
            return None
        if name not in self.registry.names(kind):
            self.flaws.append(Flaw((*path, "type"), self.registry.why_not(kind, name)))
            return None
        component = self.registry.get(KINDS[kind], name)
        config, settings = component.Config, self._with_parts(path, component, value)
        try:
            return config.model_validate(settings)
        except ValidationError as error:
            flaws = [Flaw((*path, *flaw.path), flaw.message, flaw.about_key) for flaw in flaws_of(error, config)]
            self.flaws += [flaw for flaw in flaws if not self.covers(flaw.path)]
            return None

    def _with_parts(self, path: Path, component: type[Component], settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with the components in them replaced by their Configs."""
        bound = dict(settings)
        for field, kind in component.PARTS.items():
            items = settings.get(field)
            if isinstance(items, list):
                bound[field] = [self._part((*path, field, i), kind, item) for i, item in enumerate(items)]
            elif isinstance(items, dict) and component.holds_one(field):
                bound[field] = self._part((*path, field), kind, items)
        return bound

    def _part(self, path: Path, kind: str, value: Any) -> Any:
        config = self._component(path, kind, value)
        if config is None:
            return None
        component = self.registry.get(KINDS[kind], config.type)
        if config.component is not component:  # what is made of parts builds them from their Configs alone
            words = f"'{config.type}' cannot be a part, because its Config is that of {config.component.__name__}"
            self.flaws.append(Flaw((*path, "type"), f"{words}; give {component.__name__} a nested Config of its own"))
            return None
        return config
