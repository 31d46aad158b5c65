"""`moeframe init`: lists the specs that come with moeframe, and writes one into the working folder."""

import itertools
import re
from pathlib import Path
from typing import Any

import click
import yaml

import moeframe
from moeframe.errors import InputError, StorageError

REFERENCES = ("base", "spec")
"""Keys of a spec or study file that name another file, relative to it."""
COMMAND = re.compile(
    r"(?<!`)(?:moeframe (?:run|merge|study) specs/\S+\.yaml(?: --[a-z-]+(?: \d+)?)*|python benchmarks/\S+)"
)
"""A command in the first comment of a spec."""


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
    commands = _commands(folder / main_file)
    if not any(str(main_file) in command for command in commands):
        commands.append(_default_command(main_file, contents[main_file]))
    for command in commands:
        click.echo(f"next: {command}{' (in a checkout of moeframe)' if command.startswith('python ') else ''}")


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
    """Return the file, those that it names, and the specs that its first comment tells the user to run."""
    found: list[Path] = []
    wanted = [path]
    while wanted:
        one = wanted.pop(0)
        if one in found:
            continue
        found.append(one)
        data: dict[str, Any] = yaml.safe_load(one.read_text(encoding="utf-8"))
        wanted += [(one.parent / data[key]).resolve() for key in REFERENCES if key in data]
        named = (re.search(r"\S+\.yaml", command) for command in _commands(one))
        wanted += [folder / match[0] for match in named if match is not None]
    return found


def _commands(path: Path) -> list[str]:
    """Return the commands in the first comment of a spec, with paths below the working folder."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return [match[0].replace(" specs/", " ") for line in comment if (match := COMMAND.search(line))]


def _default_command(path: Path, content: bytes) -> str:
    return f"moeframe {'study' if 'variants' in yaml.safe_load(content) else 'run'} {path}"


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and not (path.is_file() and path.read_bytes() == content)
