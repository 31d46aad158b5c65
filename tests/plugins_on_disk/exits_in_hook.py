"""Gives up when it is asked."""

import sys

from moeframe import hookimpl


@hookimpl
def moeframe_gates():
    sys.exit("no licence")
