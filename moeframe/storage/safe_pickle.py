"""Pickles read as data: nothing that a pickle names is imported or called.

A pickle is a program. Here each name that it may refer to is on its reader's allow-list, which says what of ours takes
its place; any other name ends the reading.
"""

import io
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class RefusedPickleError(Exception):
    """The pickle refers to something that its allow-list does not have; the message is what."""


class UnreadablePickleError(Exception):
    """The bytes are not a pickle, or not all of one; the message is the cause."""


@dataclass(frozen=True)
class AllowList:
    """The full names, `module.name`, that a pickle may refer to, and what of ours takes their place."""

    functions: Mapping[str, Callable[..., Any]]
    """Functions and classes that the pickle calls; ours gets the arguments instead."""
    containers: Mapping[str, type] = field(default_factory=dict)
    """Plain containers, such as `dict` for an OrderedDict."""
    classes: re.Pattern[str] | None = None
    """Names of classes whose objects become a `record`."""
    record: type = object
    """A class of ours with a `__setstate__`; the pickle gets an empty subclass of it, with the name of its own."""


class _StandIn:
    """Takes the place of a function that the pickle names; the pickle cannot change it."""

    __slots__ = ("_name", "_replacement")

    def __init__(self, name: str, replacement: Callable[..., Any]):
        self._name, self._replacement = name, replacement

    def __call__(self, *arguments: Any) -> Any:
        return self._replacement(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickleError(f"a change of {self._name}")


class _Unpickler(pickle.Unpickler):
    """Plain containers, stand-ins and records."""

    def __init__(self, file: io.BufferedIOBase, allowed: AllowList, encoding: str):
        super().__init__(file, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        full_name, allowed = f"{module}.{name}", self._allowed
        if full_name in allowed.containers:
            return allowed.containers[full_name]
        if full_name in allowed.functions:
            return _StandIn(full_name, allowed.functions[full_name])
        if allowed.classes is not None and allowed.classes.fullmatch(full_name):
            return type(name, (allowed.record,), {"__slots__": ()})  # a class, as the opcode NEWOBJ demands
        raise RefusedPickleError(full_name)


def read_pickle(file: io.BufferedIOBase, allowed: AllowList, *, encoding: str = "ASCII") -> Any:
    """The value pickled in a file, made of plain containers and of what the allow-list puts in place of names.

    `encoding` is that of texts which Python 2 wrote; "bytes" leaves them as they are. Raises RefusedPickleError and
    UnreadablePickleError, and OSError where the file cannot be read.
    """
    try:
        return _Unpickler(file, allowed, encoding).load()
    except (RefusedPickleError, OSError):
        raise
    except Exception as cause:  # the pickle machine raises nearly anything on corrupt bytes
        raise UnreadablePickleError(f"{type(cause).__name__}: {cause}") from cause
