"""Validation during training: the EMA model's bound on test images, and how the gate routes them."""

import math
from dataclasses import dataclass

import torch

from moeframe.assembly import Assembly
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.routing import profile_routing
from moeframe.randomness import Trajectories


@dataclass(frozen=True)
class ValidationMetrics:
    """Validation of the EMA model at one step."""

    step: int
    bits_per_dim: float
    standard_error: float | None
    """Over images; None for a single image."""
    n: int
    log_snr: list[float]
    gate_weights: list[list[float]]
    router_accuracy: list[float]
    router_accuracy_by_slice: list[list[float | None]]
    """None for a slice without validation images."""


@torch.no_grad()
def measure_validation(assembly: Assembly, model: MergedDenoiser, step: int) -> ValidationMetrics:
    """Evaluate the bound; images, times and noise are the same at every step, so only the model moves it."""
    a = assembly
    model = model.eval()
    numbers = a.test_numbers(a.spec.training.validation_images)
    n, batch_size = len(numbers), a.spec.evaluation.batch_size
    times = a.streams.low_discrepancy(n, "held_out/times")[a.streams.permutation(n, "held_out/order")]
    parts = []
    for start in range(0, n, batch_size):
        stop = min(n, start + batch_size)
        levels = a.test.images(numbers[start:stop]).to(a.device)
        items = Trajectories.numbered(a.streams, start, stop)
        parts.append(continuous_bound(model, a.schedule, a.image, levels, times[start:stop].to(a.device), items))
    bound = Bound.concatenate(parts)
    shown = numbers[:batch_size]
    routing = profile_routing(
        model,
        a.schedule,
        a.image,
        a.test.images(shown),
        a.slices.test[shown],
        Trajectories.numbered(a.streams, 0, len(shown)),
        n_levels=11,
    )
    return ValidationMetrics(
        step=step,
        bits_per_dim=float(bound.total.mean()),
        standard_error=standard_error([bound]) if n > 1 else None,
        n=n,
        log_snr=routing.log_snr,
        gate_weights=routing.mean_weights.tolist(),
        router_accuracy=routing.accuracy.tolist(),
        router_accuracy_by_slice=[
            [None if math.isnan(hit) else hit for hit in row] for row in routing.accuracy_by_slice.tolist()
        ],
    )
