"""Exporters of trained models."""
