"""Feature networks that components of any kind may use; this package knows no kind."""
