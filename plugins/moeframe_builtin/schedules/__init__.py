"""Built-in noise schedules."""
