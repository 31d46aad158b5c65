"""Readers of file formats that are not datasets by themselves."""
