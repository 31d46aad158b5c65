"""The abstract kinds that plugins implement."""
