"""Registers the entry points of the plugin in this folder below PLUGIN_SITE, as `pip install -e .` would."""

import os
import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    if sys.argv[1:] != ["install", "-e", "."]:
        raise SystemExit(f"pip {' '.join(sys.argv[1:])}: the examples install a plugin with `pip install -e .` only")
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    folder = Path(os.environ["PLUGIN_SITE"]) / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["moeframe"].items())
    (folder / "entry_points.txt").write_text(f"[moeframe]\n{points}")
