"""`moeframe init`: lists the specs that come with moeframe, and writes one into the working folder."""

from pathlib import Path
from typing import Any

import click
import yaml

import moeframe
from moeframe.errors import InputError, StorageError

REFERENCES = ("base", "spec")
"""Keys of a spec or study file that name another file, relative to it."""


@click.command()
@click.argument("name", required=False, shell_complete=lambda _, __, typed: _names_beginning(typed))
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def init(name: str | None, force: bool) -> None:
    """List the example specs, or write spec NAME into this folder.

    Files that NAME is based on are written too.
    """
    folder = specs_folder()
    if name is None:
        _print_list(folder)
        return
    files = _with_references(_file_of(name, folder), folder)
    contents = {path.relative_to(folder): path.read_bytes() for path in files}
    differing = [str(path) for path, content in contents.items() if _differs(path, content)]
    if differing and not force:
        raise InputError(f"{', '.join(differing)}: already exists and differs; --force overwrites it")
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another folder") from None
        click.echo(f"wrote {path}")
    main_file = next(iter(contents))
    command = "study" if "variants" in yaml.safe_load(contents[main_file]) else "run"
    click.echo(f"next: moeframe {command} {main_file}")


def specs_folder() -> Path:
    """The specs in the installed package, or, in a checkout, the folder specs/ beside it."""
    package = Path(moeframe.__file__).parent
    installed = package / "_specs"
    return installed if installed.is_dir() else package.parent / "specs"


def spec_names(folder: Path) -> list[str]:
    """Names for `moeframe init`, those of the top folder first.

    >>> spec_names(specs_folder())[0]
    'celeba_hq'
    """
    found = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(found, key=lambda name: ("/" in name, name))


def _names_beginning(typed: str) -> list[str]:
    return [name for name in spec_names(specs_folder()) if name.startswith(typed)]


def _print_list(folder: Path) -> None:
    names = spec_names(folder)
    width = max(map(len, names))
    for name in names:
        first_line = (folder / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        click.echo(f"{name:<{width}}  {first_line.removeprefix('#').strip()}")


def _file_of(name: str, folder: Path) -> Path:
    names = spec_names(folder)
    wanted = name.removesuffix(".yaml")
    if wanted not in names:
        import difflib

        close = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"unknown spec '{name}'; {hint}`moeframe init` lists all")
    return folder / f"{wanted}.yaml"


def _with_references(path: Path, folder: Path) -> list[Path]:
    """The file, and those that it names, which lie in the same folder of specs."""
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = [path]
    for key in REFERENCES:
        if key in data:
            found += _with_references((path.parent / data[key]).resolve(), folder)
    return list(dict.fromkeys(found))


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and not (path.is_file() and path.read_bytes() == content)
