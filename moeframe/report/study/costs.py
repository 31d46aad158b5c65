"""What training cost, in operations: calls alone would hold a large network for as cheap as a small one."""

from collections.abc import Mapping
from typing import Any

BACKWARD = 2
"""Operations of a backward pass for one of a forward pass, about."""


def flops_per_call(row: Mapping[str, Any]) -> float | None:
    """Operations of one expert on one image, forward, gate in proportion; None where no finished run measured it."""
    for run in row["runs"]:
        parts = run["metrics"].get("flops", {}).get("parts", {})
        if "per_step_dense" in parts:
            return float(parts["per_step_dense"]["mean"]) / int(row["n_experts"])
    return None


def training_flops(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Operations of training, forward and backward, those of the variants that it is made of included."""
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
