"""Commands that look before anything is trained: validate, doctor, slice."""

import sys
from pathlib import Path

import click

from moeframe.cli.documents import doctor_document, invalid_document, valid_spec_document, valid_study_document
from moeframe.cli.options import A_PATH, json_option, overrides_option, spec_argument
from moeframe.cli.output import installed, print_json, print_warnings
from moeframe.errors import InputError


@click.command()
@spec_argument
@overrides_option
@click.option("--resolved", is_flag=True, help="Print the spec with every default written out.")
@json_option
def validate(spec: Path, overrides: tuple[str, ...], resolved: bool, as_json: bool) -> None:
    """Check SPEC, or a study file, and report all errors."""
    import yaml

    from moeframe.spec.loader import is_study, load_spec, read_document
    from moeframe.studies.study_file import load_study

    registry = installed()
    try:
        if is_study(read_document(spec)) and not overrides and not resolved:
            study = load_study(spec, registry)
            document = valid_study_document(spec, study)
            text = (
                f"{spec}: valid: '{study.name}', {len(study.variants)} variants, {_count(len(study.seeds), 'seed')}\n"
            )
        else:
            checked = load_spec(spec, registry, overrides)
            document = valid_spec_document(spec, checked, resolved=resolved)
            if resolved:
                text = yaml.safe_dump(checked.dump(), sort_keys=False, allow_unicode=True)
            else:
                experts, seeds = _count(checked.n_experts, "expert"), _count(len(checked.seeds), "seed")
                text = f"{spec}: valid: '{checked.name}', {experts}, {seeds}\n"
    except InputError as error:
        if as_json:
            print_json(invalid_document(spec, error))
        raise
    if as_json:
        print_json(document)
    else:
        click.echo(text, nl=False)


@click.command()
@click.argument("spec", required=False, type=A_PATH)
@overrides_option
@json_option
def doctor(spec: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Report which packages, data and weights are missing.

    With SPEC: what that spec needs; exit status 2 when some of it is missing.
    """
    from moeframe.runs.doctor import examine

    findings = examine(spec, overrides)
    if as_json:
        print_json(doctor_document(findings))
    else:
        for finding in findings:
            mark = click.style("ok     ", fg="green") if finding.ok else click.style("missing", fg="yellow")
            click.echo(f"{mark}  {finding.what}: {finding.detail}")
    if spec is not None and any(finding.needed and not finding.ok for finding in findings):
        sys.exit(2)


@click.command("slice")
@spec_argument
@overrides_option
@click.option("--out", type=A_PATH, metavar="DIR", help="Folder of the contact sheets; slices/NAME by default.")
def slice_command(spec: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Slice the data of SPEC: sizes, thresholds and contact sheets."""
    from rich.console import Console

    from moeframe.report.terminal import slice_table
    from moeframe.runs.slicing import slice_data

    installed()
    folder = Path("slices") / spec.stem if out is None else out
    slices = slice_data(spec, folder, overrides)
    assert slices.slicer is not None
    Console().print(slice_table(slices.names, slices.train_sizes, slices.test_sizes))
    print_warnings(slices.warnings())
    for name, values in slices.slicer.state().items():
        shown = ", ".join(value if isinstance(value, str) else f"{value:.6g}" for value in values)
        click.echo(f"{name}: {shown if len(values) <= 16 else f'{len(values)} values, in {folder}/slices.npz'}")
    click.echo(f"contact sheets: {folder}/slice-0.png ... slice-{slices.n_slices - 1}.png")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
