"""Flaws: what is wrong at a path of a spec, in our words instead of pydantic's."""

from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moeframe.plugin.registry import did_you_mean

Path = tuple[str | int, ...]
"""Keys and list positions that lead to a value of a spec."""


@dataclass(frozen=True)
class Flaw:
    """One thing wrong at a path of the spec; `about_key` when the key itself is wrong rather than its value."""

    path: Path
    message: str
    about_key: bool = False


class FlawsError(Exception):
    """Internal: the flaws of a spec, before they are given a place in a file."""

    def __init__(self, flaws: list[Flaw]):
        super().__init__(flaws)
        self.flaws = flaws


def flaws_of(error: ValidationError, model: type[BaseModel]) -> list[Flaw]:
    """pydantic's errors in our words."""
    flaws = []
    for item in error.errors(include_url=False):
        path: Path = tuple(item["loc"])
        kind = item["type"]
        if kind == "extra_forbidden":
            known = _known_keys(model, path[:-1])
            words = [f"unknown key {str(path[-1])!r}", *did_you_mean(str(path[-1]), known)]
            if known:
                words.append(f"known keys: {', '.join(known)}")
            flaws.append(Flaw(path, "; ".join(words), about_key=True))
        elif kind == "missing":
            flaws.append(Flaw(path[:-1], f"missing key '{path[-1]}'", about_key=True))
        elif kind == "value_error":
            flaws.append(Flaw(path, str(item["ctx"]["error"])))
        else:
            flaws.append(Flaw(path, f"{_requirement(item)}, not {shown(item['input'])}"))
    return flaws


def _requirement(item: ErrorDetails) -> str:
    match item["type"]:
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a mapping"
        case "list_type" | "tuple_type":
            return "must be a list"
        case "too_short":
            return f"must have at least {item['ctx']['min_length']} item(s)"
        case "too_long":
            return f"must have at most {item['ctx']['max_length']} item(s)"
        case "int_type" | "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "float_type" | "float_parsing":
            return "must be a number"
        case "string_pattern_mismatch":
            return f"must match {item['ctx']['pattern']}"
    return item["msg"].removeprefix("Input ").replace("should", "must")


def shown(value: object) -> str:
    """A value as a message shows it, shortened when it is long.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ..."
    """
    text = repr(value)
    return text if len(text) <= 64 else f"{text[:60]} ..."


def _known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """Keys of the model at a path; none where the path leads to no model."""
    inner: Any = model
    for part in path:
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(str(part))
            inner = field.annotation if field is not None else None
        else:
            inner = get_args(inner)[1] if get_origin(inner) is dict else None
    return list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
