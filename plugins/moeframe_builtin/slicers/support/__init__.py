"""Shared by several slicers: clustering, grouping, label files, luma."""
