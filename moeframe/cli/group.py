"""The `moeframe` command: global options, one form for every error, exit status 0, 1 or 2."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from moeframe import __version__
from moeframe.errors import MoeframeError
from moeframe.plugin.files import PLUGIN_FILES

EPILOG = """\b
Shell completion, in ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish:
  bash:  eval "$(_MOEFRAME_COMPLETE=bash_source moeframe)"
  zsh:   eval "$(_MOEFRAME_COMPLETE=zsh_source moeframe)"
  fish:  _MOEFRAME_COMPLETE=fish_source moeframe | source

\b
Exit status: 0 done, 1 the run failed, 2 the input is wrong.
"""


class _Commands(click.Group):
    """Report errors as lines that begin with `error:`; the manual (docs/, page cli) is generated from the commands."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command and exit with its status."""
        click_main: Any = super().main
        if not standalone_mode:
            return click_main(*args, standalone_mode=False, **extra)
        try:
            status = click_main(*args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            if error.ctx is not None:
                click.echo(error.ctx.get_usage(), err=True)
            _fail(error.format_message(), 2)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except click.Abort:
            _fail("interrupted", 1)
        sys.exit(status)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All commands, in the order in which a user meets them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of the library become messages."""
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
        try:
            return super().invoke(ctx)
        except MoeframeError as error:
            _fail(str(error), error.exit_status)
        except BrokenPipeError:
            sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    """Prefix every line, so that the problems of a file look alike."""
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="moeframe")
@click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    metavar="FILE.py",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Load a plugin from a file; repeatable. {PLUGIN_FILES}=A.py{os.pathsep}B.py does the same.",
)
@click.pass_context
def main(context: click.Context, plugin_files: tuple[Path, ...]) -> None:
    """Merge diffusion experts with a gate, and report likelihood and quality."""
    if os.environ.get("NO_COLOR"):
        context.color = False
    context.with_resource(_announced(plugin_files))


@contextmanager
def _announced(files: tuple[Path, ...]) -> Iterator[None]:
    """Name the plugin files in the environment, which a study's processes inherit, until the command ends."""
    before = os.environ.get(PLUGIN_FILES)
    if files:
        known = [name for name in (before or "").split(os.pathsep) if name]
        os.environ[PLUGIN_FILES] = os.pathsep.join([*known, *(str(path.resolve()) for path in files)])
    try:
        yield
    finally:
        if files:
            os.environ.pop(PLUGIN_FILES)
            os.environ.update({} if before is None else {PLUGIN_FILES: before})
