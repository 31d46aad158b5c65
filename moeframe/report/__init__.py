"""What a run leaves behind for a reader: results.json, image grids, plots and a self-contained HTML page."""
