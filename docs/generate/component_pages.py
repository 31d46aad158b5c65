"""One Markdown page per installed component, from its docstring and its config, and an index per kind."""

import importlib
import inspect
from collections.abc import Mapping

from settings_tables import settings_table, table

from moeframe.interfaces.component import Component
from moeframe.plugin.registry import Registry

FACTS = {
    "ROLE": "what the figure is about",
    "UNIT": "unit",
    "LEARNS": "has weights to train",
    "NEEDS_GATE": "needs a gate",
    "DETERMINISTIC": "the same again when measured again",
}
"""Class variables that a user may want to know, and their titles."""


def shipped(registry: Registry, kind: str) -> list[type[Component]]:
    """The components of a kind that come with moeframe itself, not with other plugins of this environment."""
    return [item.component for item in registry.components(kind) if item.provider.distribution == "moeframe"]


def component_pages(registry: Registry, kinds: Mapping[str, type[Component]]) -> dict[str, str]:
    """`KIND/NAME.md` and `KIND/index.md` to Markdown, for every component of moeframe."""
    pages = {}
    for kind, base in kinds.items():
        components = shipped(registry, kind)
        rows = [(f"[`{one.name()}`]({one.name()}.md)", _cell(one.summary())) for one in components]
        pages[f"{kind}/index.md"] = "\n\n".join(
            [
                f"# {kind.capitalize()}",
                _docstring(base),
                f"[Interface and contract](../../interfaces/{_module(base)}.md)",
                table((kind, "what it does"), rows),
            ]
        )
        pages |= {f"{kind}/{one.name()}.md": component_page(one) for one in components}
    return pages


def component_page(component: type[Component]) -> str:
    """Name, description, settings and facts of a component."""
    required = [
        f"{key}: ..." for key, field in component.Config.model_fields.items() if field.is_required() and key != "type"
    ]
    facts = [
        (title, f"`{str(getattr(component, name)).lower()}`")
        for name, title in FACTS.items()
        if hasattr(component, name)
    ]
    module = component.__module__
    settings = settings_table(component.Config, frozenset({"type"}))
    parts = [
        f"# {component.name()}",
        _docstring(component),
        f"```yaml\n{{{', '.join([f'type: {component.name()}', *required])}}}\n```",
        f"## Settings\n\n{settings}" if settings else "It has no settings.",
        "## Facts\n\n" + table(("", ""), [*facts, ("class", f"`{module}.{component.__qualname__}`")]),
        *_module_notes(module),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _module(base: type[Component]) -> str:
    return base.__module__.rsplit(".", 1)[1]


def _module_notes(module: str) -> list[str]:
    """What the file says beyond its first line: formats, sources, equations."""
    text = inspect.cleandoc(importlib.import_module(module).__doc__ or "")
    rest = text.partition("\n\n")[2].strip()
    return [f"## Notes\n\n{rest}"] if rest else []


def _docstring(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
