"""For tests of components: contract checks per kind, and analytic experts. Public, for plugin authors too.

A plugin's test is one line, `check_component(MyGate)`.
"""

from moeframe.testing.analytic import GaussianExpert, PlainTrunk, PosteriorGate, gaussian_mixture
from moeframe.testing.contracts import (
    check_component,
    check_dataset,
    check_launcher,
    check_loss,
    check_metric,
    check_sampler,
    check_schedule,
    check_slicer,
)
from moeframe.testing.model_contracts import check_expert, check_exporter, check_gate, check_trunk

__all__ = [
    "GaussianExpert",
    "PlainTrunk",
    "PosteriorGate",
    "check_component",
    "check_dataset",
    "check_expert",
    "check_exporter",
    "check_gate",
    "check_launcher",
    "check_loss",
    "check_metric",
    "check_sampler",
    "check_schedule",
    "check_slicer",
    "check_trunk",
    "gaussian_mixture",
]
