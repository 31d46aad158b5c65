"""Arguments and options that several commands share, so that one name means one thing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

A_PATH = click.Path(path_type=Path)

spec_argument = click.argument("spec", type=A_PATH)
run_argument = click.argument("run_folder", metavar="RUN", type=A_PATH)
overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override one value, e.g. training.steps=500; repeatable.",
)
device_option = click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N; the spec's by default.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress; warnings and results remain.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
out_option = click.option("--out", type=A_PATH, metavar="DIR", help="Run folder; runs/NAME by default.")
fresh_option = click.option("--fresh", is_flag=True, help="Delete an earlier run in that folder and start over.")


def run_seed_option(help_text: str, *, multiple: bool = False) -> Callable[[Any], Any]:
    """`--run-seed N`: the seed of a training, in every command."""
    return click.option("--run-seed", "run_seed", type=int, multiple=multiple, metavar="N", help=help_text)


def renamed_seed_option(new: str, *, multiple: bool = False) -> Callable[[Any], Any]:
    """`--seed N`, which meant different things in different commands: the old name of option `new`."""

    def warn(context: click.Context, _: click.Parameter, value: Any) -> Any:
        if value not in (None, ()):
            click.echo(f"warning: --seed of `{context.command_path}` is called {new} now", err=True)
        return value

    return click.option("--seed", "old_seed", type=int, multiple=multiple, hidden=True, callback=warn)


def with_device(overrides: Sequence[str], device: str | None) -> list[str]:
    """The overrides, and `--device` as the last of them."""
    return [*overrides, *([] if device is None else [f"device={device}"])]


def run_options(command: Command) -> Command:
    """Add the argument and options that `run` and `merge` share."""
    shared = (spec_argument, overrides_option, out_option, fresh_option, device_option, quiet_option, json_option)
    for option in reversed(shared):
        command = option(command)
    return command
