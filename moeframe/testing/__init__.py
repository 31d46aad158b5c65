"""For tests of components: contract checks per kind, and analytic experts. Public, for plugin authors too.

A plugin's test is one line, `check_component(MyGate)`.
"""

from moeframe.testing.analytic import GaussianExpert, PosteriorGate, gaussian_mixture
from moeframe.testing.contracts import (
    check_component,
    check_dataset,
    check_expert,
    check_gate,
    check_loss,
    check_metric,
    check_sampler,
    check_schedule,
    check_slicer,
)

__all__ = [
    "GaussianExpert",
    "PosteriorGate",
    "check_component",
    "check_dataset",
    "check_expert",
    "check_gate",
    "check_loss",
    "check_metric",
    "check_sampler",
    "check_schedule",
    "check_slicer",
    "gaussian_mixture",
]
