"""pydantic's validation errors as problems of a spec, in our words."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moeframe.errors import SpecPath, SpecProblem
from moeframe.plugin.registry import did_you_mean


class UnlocatedProblemsError(Exception):
    """Internal: the problems of a spec, before each is given its place in a file."""

    def __init__(self, problems: list[SpecProblem]):
        super().__init__(problems)
        self.problems = problems


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[SpecProblem]:
    """The problems that pydantic found; `model` is the one that it validated against."""
    problems = []
    for item in error.errors(include_url=False):
        path: SpecPath = tuple(item["loc"])
        kind = item["type"]
        if kind == "extra_forbidden":
            known = _known_keys(model, path[:-1])
            words = [f"unknown key {str(path[-1])!r}", *did_you_mean(str(path[-1]), known)]
            if known:
                words.append(f"known keys: {', '.join(known)}")
            problems.append(SpecProblem(path, "; ".join(words), about_key=True))
        elif kind == "missing":
            problems.append(SpecProblem(path[:-1], f"missing key '{path[-1]}'", about_key=True))
        elif kind == "value_error":
            problems.append(SpecProblem(path, str(item["ctx"]["error"])))
        else:
            problems.append(SpecProblem(path, f"{_requirement(item)}, not {shown(item['input'])}"))
    return problems


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
            return "must be an integer"
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


def _known_keys(model: type[BaseModel], path: SpecPath) -> list[str]:
    """Keys of the model at a path; none where the path leads to no model."""
    inner: Any = model
    for part in path:
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(str(part))
            inner = field.annotation if field is not None else None
        else:
            inner = get_args(inner)[1] if get_origin(inner) is dict else None
    return list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
