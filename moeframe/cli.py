"""The command line: reads arguments, calls the library, prints. Heavy imports wait until a command needs them."""

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeframe import __version__
from moeframe.errors import MoeframeError
from moeframe.plugin.kinds import ALL_KINDS

if TYPE_CHECKING:
    from moeframe.plugin.registry import Registry
    from moeframe.report.study.rows import Table as StudyTable

KINDS = tuple(kind.plural for kind in ALL_KINDS)

overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override one value, e.g. training.steps=500; repeatable.",
)


class _Commands(click.Group):
    """Turns our errors into one message and the exit status of DESIGN section 4."""

    def invoke(self, context: click.Context) -> Any:
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
        try:
            return super().invoke(context)
        except MoeframeError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_status)
        except BrokenPipeError:
            sys.exit(0)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moeframe")
def main() -> None:
    """Merge diffusion experts with a gate, and measure what the merge did to likelihood and sample quality."""


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@overrides_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME if not given.")
@click.option("--fresh", is_flag=True, help="Delete an earlier run in that folder and start over.")
def run(spec: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool) -> None:
    """Train, merge, sample, measure and report what SPEC says. The same command resumes an interrupted run."""
    from moeframe.progress import watching
    from moeframe.runs.pipeline import run as run_spec
    from moeframe.runs.pipeline import run_folder_of

    _installed()
    with watching() as watcher:
        results = run_spec(spec, overrides=overrides, out=out, fresh=fresh, watcher=watcher)
    _print_results(results, run_folder_of(results.name, out))


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@overrides_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME if not given.")
@click.option("--fresh", is_flag=True, help="Delete an earlier run in that folder and start over.")
@click.option(
    "--sweep",
    "places",
    type=click.IntRange(min=1),
    metavar="N",
    help="Put the switch between two experts in N places: bits/dim against quality.",
)
@click.option(
    "--quality",
    default="frechet",
    show_default=True,
    metavar="METRIC",
    help="Metric of the spec that --sweep sets against bits/dim.",
)
def merge(
    spec: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool, places: int | None, quality: str
) -> None:
    """Merge the finished experts of SPEC without training: calibrate the gate, sample, measure and report."""
    from moeframe.progress import watching
    from moeframe.runs.pipeline import merge as merge_spec
    from moeframe.runs.pipeline import run_folder_of

    _installed()
    with watching() as watcher:
        results = merge_spec(spec, overrides=overrides, out=out, fresh=fresh, watcher=watcher)
    folder = run_folder_of(results.name, out)
    _print_results(results, folder)
    if places is not None:
        _sweep(folder, places, quality)


def _sweep(folder: Path, places: int, quality: str) -> None:
    from rich.console import Console

    from moeframe.progress import watching
    from moeframe.report.run.trade_off import sweep_sentences
    from moeframe.report.terminal import sweep_table
    from moeframe.runs.sweep import sweep

    with watching() as watcher:
        found = sweep(folder, places, quality=quality, watcher=watcher)
    Console().print(sweep_table(found))
    click.echo(found.how)
    for sentence in sweep_sentences(found):
        click.echo(sentence)
    click.echo(f"sweep: {folder / 'sweep.json'}, {folder / 'sweep.svg'}")


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@overrides_option
@click.option("--resolved", is_flag=True, help="Print the spec with every default written out.")
def validate(spec: Path, overrides: tuple[str, ...], resolved: bool) -> None:
    """Check SPEC, or a study file and all its variants, against the installed components; say everything wrong."""
    import yaml

    from moeframe.spec.loader import is_study, load_spec, read_document
    from moeframe.studies.study_file import load_study

    if is_study(read_document(spec)) and not overrides and not resolved:
        study = load_study(spec, _installed())
        click.echo(f"{spec}: valid: '{study.name}', {len(study.variants)} variants, {len(study.seeds)} seeds")
        return
    checked = load_spec(spec, _installed(), overrides)
    if resolved:
        click.echo(yaml.safe_dump(checked.dump(), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(f"{spec}: valid: '{checked.name}', {checked.n_experts} experts, {len(checked.seeds)} seeds")


@main.command()
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with each component's config schema.")
def plugins(kind: str | None, as_json: bool) -> None:
    """List the installed components, of one KIND or of all, and the plugins that are broken."""
    registry = _installed()
    rows = [
        {
            "name": item.component.name(),
            "kind": each,
            "distribution": item.provider.distribution,
            "version": item.provider.version,
            "summary": item.component.summary(),
            "config_schema": item.component.config_schema(),
        }
        for each in ([kind] if kind else KINDS)
        for item in registry.components(each)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for each in [kind] if kind else KINDS:
            click.secho(each, bold=True)
            for row in rows:
                if row["kind"] == each:
                    click.echo(f"  {row['name']:<16} {row['summary']}  [{row['distribution']} {row['version']}]")


@main.command()
def schema() -> None:
    """Print the JSON Schema of a spec file, for editors; it covers every installed component."""
    from moeframe.spec.json_schema import json_schema

    click.echo(json.dumps(json_schema(_installed()), indent=1))


@main.command("slice")
@click.argument("spec", type=click.Path(path_type=Path))
@overrides_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the contact sheets; slices/NAME if not given.")
def slice_command(spec: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Cut the data of SPEC into slices, before any training: sizes, thresholds and a contact sheet of each."""
    from rich.console import Console

    from moeframe.report.terminal import slice_table
    from moeframe.runs.slicing import slice_data

    _installed()
    folder = Path("slices") / spec.stem if out is None else out
    slices = slice_data(spec, folder, overrides)
    assert slices.slicer is not None
    Console().print(slice_table(slices.names, slices.train_sizes, slices.test_sizes))
    for warning in slices.warnings():
        click.echo(f"warning: {warning}", err=True)
    for name, values in slices.slicer.state().items():
        shown = ", ".join(value if isinstance(value, str) else f"{value:.6g}" for value in values)
        click.echo(f"{name}: {shown if len(values) <= 16 else f'{len(values)} values, in {folder}/slices.npz'}")
    click.echo(f"contact sheets: {folder}/slice-0.png ... slice-{slices.n_slices - 1}.png")


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="Number of images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option("--run-seed", type=int, help="Which training seed of the run; its first if not given.")
@click.option("--device", help="auto, cpu, cuda or cuda:N instead of the spec's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    show_default=True,
    help="PNG grid, .npz for the integer levels, or a new folder for one PNG each.",
)
def sample(run_folder: Path, count: int, seed: int, run_seed: int | None, device: str | None, out: Path) -> None:
    """Draw new images from the trained run in RUN."""
    from moeframe.runs.loaded import load
    from moeframe.storage.images import require_image_path, write_images

    require_image_path(out)
    loaded = load(run_folder, run_seed, device=device)
    write_images(out, loaded.sample_batches(count, seed), loaded.assembly.image.levels)
    click.echo(f"{count} images in {out}")


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@overrides_option
def evaluate(run_folder: Path, overrides: tuple[str, ...]) -> None:
    """Measure the trained run in RUN again; --set may change metrics, evaluation and sampler."""
    from moeframe.progress import watching
    from moeframe.runs.remeasure import evaluate as evaluate_run

    with watching() as watcher:
        results = evaluate_run(run_folder, overrides=overrides, watcher=watcher)
    _print_results(results, run_folder)


@main.command()
@click.argument("study_file", metavar="STUDY", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the study; studies/NAME if not given.")
@click.option("--plan", "plan_only", is_flag=True, help="List the runs, how each stands and what it would cost.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time, instead of the file's.")
@click.option("--only", multiple=True, metavar="VARIANT", help="This variant, and what it is made of; repeatable.")
@click.option("--seed", "seeds", multiple=True, type=int, help="This seed of the study's; repeatable.")
def study(
    study_file: Path, out: Path | None, plan_only: bool, jobs: int | None, only: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Carry out every variant of STUDY with every seed, and compare them. The same command resumes."""
    from rich.console import Console

    from moeframe.progress import watching
    from moeframe.report.terminal import plan_notes, plan_table
    from moeframe.studies.plan import plan
    from moeframe.studies.runner import run_study, study_folder_of
    from moeframe.studies.study_file import load_study

    loaded = load_study(study_file, _installed(), jobs=jobs)
    if only:
        loaded = loaded.only(only)
    if seeds:
        loaded = loaded.only_seeds(seeds)
    folder = study_folder_of(loaded.name, out)
    if plan_only:
        runs = plan(loaded, folder)
        Console().print(plan_table(runs))
        for note in plan_notes(runs):
            click.echo(note)
        return
    with watching() as watcher:
        table = run_study(loaded, folder, watcher)
    _print_study(table, folder)
    if any(row.failures for row in table.rows):
        sys.exit(1)


@main.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the report of FOLDER, a run or a study, anew from what is in it; the same content gives the same bytes."""
    from moeframe.errors import InputError
    from moeframe.report.run.page import write_report
    from moeframe.report.study.page import write_study
    from moeframe.storage.study_folder import is_study

    if folder.is_file():
        raise InputError(f"{folder}: is a file; name the folder of a run or a study, such as runs/NAME or studies/NAME")
    if is_study(folder):
        _print_study(write_study(folder), folder)
    else:
        click.echo(f"report: {write_report(folder)}")


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, metavar="FORMAT", help="safetensors, diffusers, or a plugin's.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write, new or empty.")
@click.option("--expert", type=int, help="Number of the one expert to export; the merged model if not given.")
@click.option("--run-seed", type=int, help="Which training seed of the run; its first if not given.")
def export(run_folder: Path, format_name: str, out: Path, expert: int | None, run_seed: int | None) -> None:
    """Write the trained model in RUN, or one of its experts, as files that others load, with a model card."""
    from moeframe.runs.export import export as export_run

    how = export_run(run_folder, out, into=format_name, expert=expert, seed=run_seed)
    click.echo(f"{out}: written; load it with\n{how}")


@main.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@overrides_option
def doctor(spec: Path | None, overrides: tuple[str, ...]) -> None:
    """Say what is installed, which data and weights are found, and which metrics cannot be computed and why.

    With SPEC: what that spec needs; exit status 2 when something is missing.
    """
    from moeframe.runs.doctor import examine

    findings = examine(spec, overrides)
    for finding in findings:
        mark = click.style("ok     ", fg="green") if finding.ok else click.style("missing", fg="yellow")
        click.echo(f"{mark}  {finding.what}: {finding.detail}")
    if spec is not None and not all(finding.ok for finding in findings):
        sys.exit(2)


def _installed() -> "Registry":
    """What is installed, saying on standard error what is broken."""
    from moeframe.plugin.registry import Registry

    registry = Registry.installed()
    for problem in [*(f"broken plugin: {broken}" for broken in registry.broken), *registry.conflicts()]:
        click.echo(f"warning: {problem}", err=True)
    return registry


def _print_results(results: Any, folder: Path) -> None:
    from rich.console import Console

    from moeframe.report.terminal import cautions, terminal_table
    from moeframe.runs.data_card import licence_warnings

    Console().print(terminal_table(results))
    for caution in cautions(results):
        click.secho(f"caution: {caution}", fg="yellow")
    for warning in licence_warnings(folder):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"report: {folder / 'report.html'}")


def _print_study(table: "StudyTable", folder: Path) -> None:
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
    for row in table.rows:
        for failure in row.failures:
            click.echo(f"warning: {row.name}, {failure}", err=True)
    click.echo(f"tables: {folder / 'tables'}")
    click.echo(f"report, every comparison in a sentence: {folder / 'study.html'}")


if __name__ == "__main__":
    main()
