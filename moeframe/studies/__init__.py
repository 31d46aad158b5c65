"""Studies: many runs of one spec, planned, carried out and compared."""
