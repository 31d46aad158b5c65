"""Commands of studies and of reports: study, report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeframe.cli.documents import plan_document
from moeframe.cli.options import A_PATH, json_option, quiet_option, renamed_seed_option, run_seed_option
from moeframe.cli.output import installed, print_json, print_warnings
from moeframe.errors import InputError

if TYPE_CHECKING:
    from moeframe.report.study.rows import PlannedRun, Table


@click.command()
@click.argument("study_file", metavar="STUDY", type=A_PATH)
@click.option("--out", type=A_PATH, metavar="DIR", help="Folder of the study; studies/NAME by default.")
@click.option("--plan", "plan_only", is_flag=True, help="List runs with status and estimated cost, then exit.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Parallel runs; the file's number by default.")
@click.option(
    "--only", multiple=True, metavar="VARIANT", help="Run only this variant and its dependencies; repeatable."
)
@run_seed_option("Run only this training seed; repeatable.", multiple=True)
@renamed_seed_option("--run-seed", multiple=True)
@quiet_option
@json_option
def study(
    study_file: Path,
    out: Path | None,
    plan_only: bool,
    jobs: int | None,
    only: tuple[str, ...],
    run_seed: tuple[int, ...],
    old_seed: tuple[int, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Run every variant of STUDY with every seed, and compare them.

    The same command resumes an interrupted study. --json needs --plan; a
    finished study has its figures in tables/study.json.
    """
    from moeframe.progress import watching
    from moeframe.studies.plan import plan
    from moeframe.studies.runner import run_study, study_folder_of
    from moeframe.studies.study_file import load_study

    if as_json and not plan_only:
        raise InputError("--json needs --plan here; the figures of a finished study are in tables/study.json")
    loaded = load_study(study_file, installed(), jobs=jobs)
    if only:
        loaded = loaded.only(only)
    if seeds := (*run_seed, *old_seed):
        loaded = loaded.only_seeds(seeds)
    folder = study_folder_of(loaded.name, out)
    if plan_only:
        runs = plan(loaded, folder)
        if as_json:
            print_json(plan_document(loaded.name, folder, runs))
        else:
            _print_plan(runs)
        return
    with watching(quiet=quiet) as watcher:
        table = run_study(loaded, folder, watcher)
    _print_study(table, folder)
    if any(row.failures for row in table.rows):
        sys.exit(1)


@click.command()
@click.argument("folder", metavar="FOLDER", type=A_PATH)
def report(folder: Path) -> None:
    """Write the report of FOLDER, a run or a study, again.

    Nothing is measured: the same files give the same bytes.
    """
    from moeframe.report.run.page import write_report
    from moeframe.report.study.page import write_study
    from moeframe.storage.study_folder import is_study

    if folder.is_file():
        raise InputError(f"{folder}: a file; name the folder of a run or a study, such as runs/NAME or studies/NAME")
    if folder.name in ("", ".."):
        folder = folder.resolve()  # messages and pages show its name, not a dot
    if is_study(folder):
        _print_study(write_study(folder), folder)
    else:
        click.echo(f"report: {write_report(folder)}")


def _print_plan(runs: "list[PlannedRun]") -> None:
    from rich.console import Console

    from moeframe.report.terminal import plan_notes, plan_table

    Console().print(plan_table(runs))
    for note in plan_notes(runs):
        click.echo(note)


def _print_study(table: "Table", folder: Path) -> None:
    from rich.console import Console

    from moeframe.report.study.formats import notes
    from moeframe.report.study.sentences import in_short
    from moeframe.report.terminal import study_tables

    console = Console()
    for part in study_tables(table, console.width):
        console.print(part)
    for line in in_short(table):
        click.echo(line)
    for note in notes(table):
        click.secho(f"caution: {note}", fg="yellow")
    print_warnings([f"{row.name}, {failure}" for row in table.rows for failure in row.failures])
    click.echo(f"tables: {folder / 'tables'}")
    click.echo(f"report: {folder / 'study.html'}")
