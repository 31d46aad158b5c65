"""Needs something that is not there."""

raise RuntimeError("libfoo is missing\n  install it")
