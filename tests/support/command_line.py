"""Running the command line in the process of a test."""

from pathlib import Path

from click.testing import CliRunner, Result

from moeframe import cli


def call(*arguments: object) -> Result:
    """What a command printed, and its exit status; a traceback fails the test."""
    result = CliRunner().invoke(cli.main, [str(part) for part in arguments], prog_name="moeframe")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(status: int, *arguments: object) -> str:
    """The `error:` lines of a command that must fail with this exit status, and print nothing else on stdout."""
    result = call(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return "\n".join(line for line in result.stderr.splitlines() if line.startswith("error: "))


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
