"""Pydantic models as Markdown tables: one row per setting, from the model's own JSON Schema."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]
LARGEST = 10**15
"""A larger limit is that of the number format and tells a reader nothing."""
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "{} or more entries",
    "maxLength": "at most {} characters",
}
"""JSON Schema's keyword to how a reader sees it."""


def settings_table(model: type[BaseModel], leave_out: frozenset[str] = frozenset()) -> str:
    """A table of the settings of a model: key, type with limits, default, description. Empty without settings."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    rows = [
        (
            f"`{key}`",
            _escaped(type_of(entry, definitions)),
            "**required**" if key in required else _default(entry),
            _escaped(_description(entry)),
        )
        for key, entry in schema.get("properties", {}).items()
        if key not in leave_out
    ]
    return table(("key", "type", "default", "meaning"), rows) if rows else ""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def type_of(entry: Schema, definitions: Schema) -> str:
    """The type of a setting in words, with its limits.

    >>> type_of({"type": "array", "items": {"type": "integer"}, "minItems": 1}, {})
    'list of integer, 1 or more entries'
    >>> type_of({"type": "integer", "minimum": 1}, {})
    'integer ≥ 1'
    >>> type_of({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, {})
    '`a`, `b` or null'
    """
    if "$ref" in entry:
        name = entry["$ref"].rsplit("/", 1)[1]
        definition = definitions.get(name, {})
        return type_of(definition, definitions) if "enum" in definition else "mapping"
    if "allOf" in entry and len(entry["allOf"]) == 1:
        return type_of(entry["allOf"][0], definitions)
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(type_of(choice, definitions) for choice in entry["anyOf"]))
    if "const" in entry:
        return f"`{_plain(entry['const'])}`"
    if "enum" in entry:
        return ", ".join(f"`{_plain(value)}`" for value in entry["enum"])
    kind = entry.get("type", "any value")
    if kind == "array":
        items = entry.get("items") or next(iter(entry.get("prefixItems", ())), {})
        words = f"list of {type_of(items, definitions)}" if items else "list"
    else:
        words = {"object": "mapping", "string": "text", "boolean": "true or false"}.get(kind, kind)
        words = "path" if entry.get("format") == "path" else words
    limits = [text.format(f"{entry[key]:g}") for key, text in LIMITS.items() if key in entry and entry[key] < LARGEST]
    if not limits:
        return words
    return f"{words}{',' if kind == 'array' else ''} {', '.join(limits)}"


def _default(entry: Schema) -> str:
    if "default" not in entry:
        return ""
    value = entry["default"]
    if value is None:
        return "not set"
    if isinstance(value, dict) and value:
        return "see below"
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _description(entry: Schema) -> str:
    return str(entry.get("description", "")).replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
