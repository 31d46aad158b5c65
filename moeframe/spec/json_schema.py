"""JSON Schema of spec files, with every installed component, for editors."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from moeframe.plugin.registry import Registry
from moeframe.spec.schema import LIST_SECTIONS, OPTIONAL_SECTIONS, SECTIONS, RunSpec

KEPT_IN_SCHEMA = ("title", "description", "minItems")
"""What the JSON Schema of a component section keeps of RunSpec's, which knows only the abstract Config."""


def json_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (draft 7 features only) of a spec file, with every installed component."""
    kinds = {**SECTIONS, **LIST_SECTIONS}
    configs = {kind: [item.component.Config for item in registry.components(kind)] for kind in kinds.values()}
    models: list[type[BaseModel]] = [RunSpec, *(config for group in configs.values() for config in group)]
    refs, top = models_json_schema([(model, "validation") for model in models], ref_template="#/definitions/{model}")
    definitions = top["$defs"]
    schema: dict[str, Any] = definitions.pop(refs[(RunSpec, "validation")]["$ref"].rsplit("/", 1)[1])
    choices_of = {kind: [refs[(config, "validation")] for config in group] for kind, group in configs.items()}
    for section, kind in kinds.items():
        choices = [*choices_of[kind], *([{"type": "null"}] if section in OPTIONAL_SECTIONS else [])]
        for config in configs[kind]:
            definition = definitions[refs[(config, "validation")]["$ref"].rsplit("/", 1)[1]]
            definition["required"] = sorted({"type", *definition.get("required", [])})
            for field, part_kind in config.component.PARTS.items():
                one = {"oneOf": choices_of[part_kind]}
                alone = {"anyOf": [one, {"type": "null"}]}
                definition["properties"][field] |= alone if config.component.holds_one(field) else {"items": one}
        described = {key: value for key, value in schema["properties"][section].items() if key in KEPT_IN_SCHEMA}
        body = {"oneOf": choices} if section in SECTIONS else {"type": "array", "items": {"oneOf": choices}}
        schema["properties"][section] = {**described, **body}
    schema["properties"]["base"] = {
        "type": "string",
        "description": "a spec file, relative to this one, that this one overrides",
    }
    # A file with `base` may leave out anything that the base file has.
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required", [])}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}
