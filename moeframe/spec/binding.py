"""Plain data bound to what is installed: each section validated by the Config of the component that its `type` names.

A plugin's settings are checked as strictly as our own, and a broken plugin cannot spoil the spec of a run that does not
name it. The parts of a component that is made of others are read in the same way, at any depth.
"""

from typing import Any

from pydantic import ValidationError

from moeframe.errors import SpecPath, SpecProblem
from moeframe.interfaces.component import Component
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.registry import Registry
from moeframe.spec.conflicts import conflicts
from moeframe.spec.messages import UnlocatedProblemsError, problems_of, shown
from moeframe.spec.schema import LIST_SECTIONS, OPTIONAL_SECTIONS, SECTIONS, RunSpec


def bind(data: dict[str, Any], registry: Registry) -> RunSpec:
    """Validate plain data against the installed components. Raises UnlocatedProblemsError with all problems at once."""
    binder = _Binder(registry)
    bound = binder.bind(data)
    problems = list(binder.problems)
    spec = None
    try:
        spec = RunSpec.model_validate(bound)
    except ValidationError as error:
        problems += [problem for problem in problems_of(error, RunSpec) if not binder.covers(problem.path)]
    problems += [problem for problem in conflicts(bound, spec, registry) if not binder.covers(problem.path)]
    if spec is None or problems:
        raise UnlocatedProblemsError(problems)
    return spec


class _Binder:
    """Replaces each component section by its validated Config and collects what is wrong."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.problems: list[SpecProblem] = []

    def covers(self, path: SpecPath) -> bool:
        """Whether a problem at or above this path is known already."""
        return bool(path) and any(
            path[: len(known.path)] == known.path or known.path[: len(path)] == path for known in self.problems
        )

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

    def _component(self, path: SpecPath, kind: str, value: Any) -> Any:
        installed = ", ".join(self.registry.names(kind)) or "none"
        if not isinstance(value, dict):
            self.problems.append(
                SpecProblem(path, f"must be a mapping with a 'type', not {shown(value)}; installed {kind}: {installed}")
            )
            return None
        if "type" not in value:
            self.problems.append(SpecProblem(path, f"missing key 'type'; installed {kind}: {installed}"))
            return None
        name = value["type"]
        if not isinstance(name, str):
            words = f"must be the name of a component, not {shown(name)}; installed {kind}: {installed}"
            self.problems.append(SpecProblem((*path, "type"), words))
            return None
        if name not in self.registry.names(kind):
            self.problems.append(SpecProblem((*path, "type"), self.registry.why_not(kind, name)))
            return None
        component = self.registry.get(KINDS[kind], name)
        config, settings = component.Config, self._with_parts(path, component, value)
        try:
            return config.model_validate(settings)
        except ValidationError as error:
            problems = [problem.below(path) for problem in problems_of(error, config)]
            self.problems += [problem for problem in problems if not self.covers(problem.path)]
            return None

    def _with_parts(self, path: SpecPath, component: type[Component], settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with the components in them replaced by their Configs."""
        bound = dict(settings)
        for field, kind in component.PARTS.items():
            items = settings.get(field)
            if isinstance(items, list):
                bound[field] = [self._part((*path, field, i), kind, item) for i, item in enumerate(items)]
            elif isinstance(items, dict) and component.holds_one(field):
                bound[field] = self._part((*path, field), kind, items)
        return bound

    def _part(self, path: SpecPath, kind: str, value: Any) -> Any:
        config = self._component(path, kind, value)
        if config is None:
            return None
        component = self.registry.get(KINDS[kind], config.type)
        if config.component is not component:  # what is made of parts builds them from their Configs alone
            words = f"'{config.type}' cannot be a part, because its Config is that of {config.component.__name__}"
            self.problems.append(
                SpecProblem((*path, "type"), f"{words}; give {component.__name__} a nested Config of its own")
            )
            return None
        return config
