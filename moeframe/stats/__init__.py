"""Statistics: confidence intervals and paired comparisons."""
