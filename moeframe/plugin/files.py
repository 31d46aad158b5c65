"""Plugins from files: `moeframe --plugin FILE.py`, or MOEFRAME_PLUGINS, loads one without packaging it."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGIN_FILES = "MOEFRAME_PLUGINS"
"""Environment variable with paths of plugin files, separated as in PATH."""


@dataclass(frozen=True)
class PluginFile:
    """An entry point to a file, imported as a module of that name."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the module."""
        return self.path.stem

    @property
    def dist(self) -> None:
        """A file belongs to no distribution."""
        return

    def load(self) -> Any:
        """Import the file; its folder is appended to `sys.path`, so that it can import what lies beside it.

        Raises ImportError for a file that is missing or whose name is that of another module, and what the file
        raises.
        """
        if not self.path.is_file():
            raise ImportError(f"no such file; correct --plugin or {PLUGIN_FILES}")
        folder = str(self.path.parent)
        if folder not in sys.path:
            sys.path.append(folder)  # last: a file beside the plugin hides no installed module
        importlib.invalidate_caches()
        spec = None if "." in self.name else importlib.util.find_spec(self.name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != self.path:
            found = f"is also that of {spec.origin}" if spec is not None else "is not a module name"
            raise ImportError(f"the name '{self.name}' {found}; rename the file")
        return importlib.import_module(self.name)


def plugin_files() -> Sequence[PluginFile]:
    """The files that MOEFRAME_PLUGINS names, each once, in its order."""
    names = [name for name in os.environ.get(PLUGIN_FILES, "").split(os.pathsep) if name]
    return [PluginFile(path) for path in dict.fromkeys(Path(name).expanduser().resolve() for name in names)]


def line_in(path: Path, error: BaseException) -> int | None:
    """The line of the file at which an error left it, or at which Python cannot parse it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return lines[-1] if lines else None
