"""Training data: slices, batches, duplicates."""
