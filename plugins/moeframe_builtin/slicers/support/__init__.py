"""What several slicers share: clustering, grouping, label files, luma."""
