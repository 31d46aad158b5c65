"""Built-in slicers, one file each."""
