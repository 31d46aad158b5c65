"""`python -m moeframe.cli` is `moeframe`."""

from moeframe.cli import main

main(prog_name="moeframe")
