"""Commands that make or measure a run: run, merge, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeframe.cli.documents import run_document
from moeframe.cli.options import (
    device_option,
    json_option,
    overrides_option,
    quiet_option,
    run_argument,
    run_options,
    with_device,
)
from moeframe.cli.output import installed, print_json, print_results, print_warnings, warnings_about

if TYPE_CHECKING:
    from moeframe.report.run.trade_off import TradeOff
    from moeframe.storage.results import Results


@click.command()
@run_options
def run(
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    device: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train, merge, sample, measure and report SPEC.

    The same command resumes an interrupted run.
    """
    from moeframe.progress import watching
    from moeframe.runs.pipeline import run as run_spec
    from moeframe.runs.pipeline import run_folder_of

    installed()
    with watching(quiet=quiet) as watcher:
        results = run_spec(spec, overrides=with_device(overrides, device), out=out, fresh=fresh, watcher=watcher)
    _print(results, run_folder_of(results.name, out), as_json=as_json)


@click.command()
@run_options
@click.option(
    "--sweep",
    "points",
    type=click.IntRange(min=1),
    metavar="N",
    help="Evaluate N switch points between two experts: bits/dim against quality.",
)
@click.option(
    "--quality",
    default="frechet",
    show_default=True,
    metavar="METRIC",
    help="Quality metric of --sweep; the spec must measure it.",
)
def merge(
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    device: str | None,
    quiet: bool,
    as_json: bool,
    points: int | None,
    quality: str,
) -> None:
    """Merge the finished experts of SPEC and measure the result.

    The experts keep their weights; the gate is calibrated or trained alone.
    """
    from moeframe.progress import watching
    from moeframe.runs.pipeline import merge as merge_spec
    from moeframe.runs.pipeline import run_folder_of
    from moeframe.runs.sweep import sweep

    installed()
    with watching(quiet=quiet) as watcher:
        results = merge_spec(spec, overrides=with_device(overrides, device), out=out, fresh=fresh, watcher=watcher)
    folder = run_folder_of(results.name, out)
    if points is None:
        _print(results, folder, as_json=as_json)
        return
    if not as_json:
        print_results(results, folder)
    with watching(quiet=quiet) as watcher:
        found = sweep(folder, points, quality=quality, watcher=watcher)
    if as_json:
        _print(results, folder, found, as_json=True)
    else:
        _print_sweep(found, folder)


@click.command()
@run_argument
@overrides_option
@device_option
@quiet_option
@json_option
def evaluate(run_folder: Path, overrides: tuple[str, ...], device: str | None, quiet: bool, as_json: bool) -> None:
    """Measure the trained run in RUN again.

    --set may change metrics, evaluation and sampler.
    """
    from moeframe.progress import watching
    from moeframe.runs.remeasure import evaluate as evaluate_run

    with watching(quiet=quiet) as watcher:
        results = evaluate_run(run_folder, overrides=with_device(overrides, device), watcher=watcher)
    _print(results, run_folder, as_json=as_json)


def _print(results: "Results", folder: Path, sweep: "TradeOff | None" = None, *, as_json: bool) -> None:
    if not as_json:
        print_results(results, folder)
        return
    warnings = warnings_about(results, folder)
    print_warnings(warnings)
    print_json(run_document(results, folder, warnings, sweep))


def _print_sweep(sweep: "TradeOff", folder: Path) -> None:
    from rich.console import Console

    from moeframe.report.run.trade_off import sweep_sentences
    from moeframe.report.terminal import sweep_table

    Console().print(sweep_table(sweep))
    click.echo(sweep.how)
    for sentence in sweep_sentences(sweep):
        click.echo(sentence)
    click.echo(f"sweep: {folder / 'sweep.json'}, {folder / 'sweep.svg'}")
