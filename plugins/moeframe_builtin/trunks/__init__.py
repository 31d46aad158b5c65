"""Built-in trunks."""
