"""Commands that describe the installed components: plugins, schema."""

import click

from moeframe.cli.output import installed, print_json
from moeframe.plugin.kinds import ALL_KINDS

KINDS = tuple(kind.plural for kind in ALL_KINDS)


@click.command()
@click.argument("kind", required=False, type=click.Choice(KINDS), metavar="[KIND]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with each component's config schema.")
def plugins(kind: str | None, as_json: bool) -> None:
    """List installed components and who provides them.

    KIND is datasets, slicers, trunks, experts, gates, losses, schedules,
    samplers, metrics, exporters or launchers; all of them by default.
    """
    registry = installed()
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
        print_json(rows)
        return
    for each in [kind] if kind else KINDS:
        click.secho(each, bold=True)
        for row in rows:
            if row["kind"] == each:
                provider = f"{row['distribution']} {row['version']}".rstrip()
                click.echo(f"  {row['name']:<16} {row['summary']}  [{provider}]")


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec file, for editors.

    It covers every installed component.
    """
    from moeframe.spec.json_schema import json_schema

    print_json(json_schema(installed()))
