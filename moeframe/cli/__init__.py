"""The command line: each command reads its arguments, calls the library and prints. Heavy imports wait until then."""

from moeframe.cli.checking import doctor, slice_command, validate
from moeframe.cli.components import KINDS, plugins, schema
from moeframe.cli.examples import init
from moeframe.cli.group import main
from moeframe.cli.running import evaluate, merge, run
from moeframe.cli.studying import report, study
from moeframe.cli.trained import export, sample

__all__ = ["KINDS", "main"]

for command in (
    init,
    validate,
    doctor,
    slice_command,
    run,
    merge,
    evaluate,
    sample,
    export,
    study,
    report,
    plugins,
    schema,
):
    main.add_command(command)
