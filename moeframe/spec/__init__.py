"""Spec files: the schema, loading with overrides and positions, binding to the installed components, messages."""
