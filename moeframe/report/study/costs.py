"""FLOPs of training. Network calls alone would count a large network as cheap as a small one."""

from collections.abc import Mapping
from typing import Any

BACKWARD = 2
"""FLOPs of a backward pass relative to a forward pass, approximately."""


def flops_per_call(row: Mapping[str, Any]) -> float | None:
    """Return the forward FLOPs of one expert on one image, with its share of the gate; None if not measured."""
    for run in row["runs"]:
        parts = run["metrics"].get("flops", {}).get("parts", {})
        if "per_step_dense" in parts:
            return float(parts["per_step_dense"]["mean"]) / int(row["n_experts"])
    return None


def training_flops(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the FLOPs of training, forward and backward, including the variants that it is made of."""
    own = row.get("own_training_calls", row["training_calls"])
    total = 0.0
    if own:
        per_call = flops_per_call(row)
        if per_call is None:
            return None
        total = (1 + BACKWARD) * own * per_call
    for source in dict.fromkeys([*filter(None, [row.get("weights_of")]), *row.get("runs_of", [])]):
        spent = training_flops(rows[source], rows) if source in rows else None
        if spent is None:
            return None
        total += spent
    return total
