"""The command line as Markdown pages: one per command, read from click, so that no option is missing."""

import click
from settings_tables import table


def command_pages(group: click.Group, program: str = "moeframe") -> dict[str, str]:
    """File name to Markdown: `index.md` and one page per command."""
    context = click.Context(group, info_name=program)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    pages = {"index.md": _index(group, commands, context)}
    for name, command in commands.items():
        assert command is not None
        pages[f"{name}.md"] = command_page(command, click.Context(command, info_name=name, parent=context))
    return pages


def command_page(command: click.Command, context: click.Context) -> str:
    """Usage, description, arguments and options of a command."""
    usage = context.get_usage().removeprefix("Usage: ")
    parts = [
        f"# {context.command_path}",
        _prose(command.help),
        f"```text\n{usage}\n```",
        _options(command, context),
        _prose(command.epilog),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _index(group: click.Group, commands: dict[str, click.Command | None], context: click.Context) -> str:
    rows = [
        (f"[`{context.info_name} {name}`]({name}.md)", _cell((command.help or "").strip().split("\n\n")[0]))
        for name, command in commands.items()
        if command is not None
    ]
    parts = [
        "# Command line",
        _prose(group.help),
        table(("command", "what it does"), rows),
        "## Options before the command",
        _options(group, context),
        _prose(group.epilog) or "Exit status: 0 done, 1 the run failed, 2 the input is wrong.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _options(command: click.Command, context: click.Context) -> str:
    rows = []
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Argument) or record is None:
            name, meaning = parameter.make_metavar(ctx=context), "" if parameter.required else "optional"
        else:
            name, meaning = record
        rows.append((f"`{name}`", _cell(meaning)))
    return table(("argument or option", "meaning"), rows)


def _prose(text: str | None) -> str:
    """click's help text as Markdown: \\b marks a paragraph that keeps its lines."""
    paragraphs = (text or "").split("\f")[0].strip().split("\n\n")
    kept = [
        "```text\n" + part.replace("\b\n", "").strip("\n") + "\n```" if part.startswith("\b") else part
        for part in paragraphs
    ]
    return "\n\n".join(kept)


def _cell(text: str) -> str:
    return " ".join(text.replace("\b", "").split()).replace("|", "\\|")
