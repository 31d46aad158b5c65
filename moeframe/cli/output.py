"""What several commands print: broken plugins, results, JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moeframe.plugin.registry import Registry
    from moeframe.storage.results import Results


def installed() -> "Registry":
    """The installed components; broken plugins and name conflicts are warnings on standard error."""
    from moeframe.plugin.registry import Registry

    registry = Registry.installed()
    print_warnings([*(f"broken plugin: {broken}" for broken in registry.broken), *registry.conflicts()])
    return registry


def print_warnings(warnings: Sequence[str]) -> None:
    """One line each on standard error."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def print_json(document: Any) -> None:
    """The document on standard output."""
    click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))


def warnings_about(results: "Results", folder: Path) -> list[str]:
    """What to know before using the figures or the weights of a run."""
    from moeframe.report.terminal import cautions
    from moeframe.runs.data_card import licence_warnings

    return [*cautions(results), *licence_warnings(folder)]


def print_results(results: "Results", folder: Path) -> None:
    """The table of metrics, what to know of them, and the place of the report."""
    from rich.console import Console

    from moeframe.report.terminal import cautions, terminal_table
    from moeframe.runs.data_card import licence_warnings

    Console().print(terminal_table(results))
    for caution in cautions(results):
        click.secho(f"caution: {caution}", fg="yellow")
    print_warnings(licence_warnings(folder))
    click.echo(f"report: {folder / 'report.html'}")
