"""Built-in terms of the objective."""
