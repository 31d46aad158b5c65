"""Runs: the pipeline from spec to report, and what is done with a finished run."""
