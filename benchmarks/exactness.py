"""Exactness of the engine against closed forms and reference implementations, each figure with its required range.

    python benchmarks/exactness.py        # about a minute; writes results/engine/exactness.json

tests/test_exactness.py asserts the same figures, from the same functions.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import closed_forms, likelihood, merging, objective, sampling

from moeframe.runs.environment import describe_environment

OUT = Path(__file__).resolve().parent.parent / "results/engine/exactness.json"


@dataclass(frozen=True)
class Figure:
    """What is measured (its docstring says it), and the range in which every value must lie."""

    measure: Callable[[], dict[str, float]]
    low: float
    high: float

    @property
    def name(self) -> str:
        return self.measure.__name__


FIGURES = (
    Figure(merging.identical_experts_against_one, 0, 1e-6),
    Figure(merging.top_k_of_all_against_softmax, 0, 1e-6),
    Figure(merging.merging_in_other_parametrisations, 0, 1e-6),
    Figure(merging.merging_without_renormalising, 1e-2, math.inf),
    Figure(merging.dispatched_against_dense, 0, 1e-5),
    Figure(merging.expert_calls_of_top_2, 2, 2),
    Figure(merging.posterior_gate_against_true_denoiser, 0, 1e-6),
    Figure(likelihood.gaussian_bound_against_closed_form, 0, 1e-6),
    Figure(likelihood.reconstruction_against_brute_force, 0, 1e-6),
    Figure(likelihood.monte_carlo_bound_in_standard_errors, -3, 3),
    Figure(likelihood.wide_range_bound_above_entropy, 0, 1e-4),
    Figure(closed_forms.bounds_against_closed_forms, 0, 1e-6),
    Figure(closed_forms.ode_against_an_independent_flow, 0, 1e-6),
    Figure(closed_forms.methods_over_a_wide_range_against_the_density, 0, 1e-3),
    Figure(closed_forms.bits_in_other_data_ranges, 0, 1e-6),
    Figure(objective.weighting_means_minus_one, -1e-3, 1e-3),
    Figure(objective.vlb_loss_against_bound, 0, 1e-5),
    Figure(sampling.order_of_ddim, 0.85, 1.15),
    Figure(sampling.order_of_heun, 1.85, 2.15),
    Figure(sampling.steps_against_diffusers, 0, 1e-5),
    Figure(sampling.edm_preconditioning_against_formula, 0, 1e-6),
)


def main() -> None:
    torch.set_num_threads(1)
    report = {}
    for figure in FIGURES:
        values = figure.measure()
        report[figure.name] = {
            "what": " ".join((figure.measure.__doc__ or "").split()),
            "values": {name: float(f"{value:.4g}") for name, value in values.items()},
            "required": [figure.low, figure.high if math.isfinite(figure.high) else None],
            "met": all(figure.low <= value <= figure.high for value in values.values()),
        }
        print(figure.name, report[figure.name]["values"], "" if report[figure.name]["met"] else "NOT MET", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "command": "python benchmarks/exactness.py",
        "environment": describe_environment("cpu"),
        "met": sum(bool(entry["met"]) for entry in report.values()),
        "of": len(report),
        "figures": report,
    }
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    assert document["met"] == document["of"], "a figure lies outside its range"


if __name__ == "__main__":
    main()
