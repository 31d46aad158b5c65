"""Errors of finished experts by noise level: calibration data of a gate, and the summands of a sweep."""

import torch
from torch import Tensor

from moeframe.assembly import Assembly
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.gate import ExpertErrors
from moeframe.likelihood.switching import concatenate, expert_errors
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories


def calibration_errors(assembly: Assembly, model: MergedDenoiser) -> ExpertErrors:
    """Measure the experts' errors on random training images, one noise level each; no sampling."""
    n = min(assembly.spec.training.calibration_images, len(assembly.train))
    chosen = assembly.streams.permutation(len(assembly.train), "calibration/images")[:n]
    return measured_errors(assembly, model, assembly.train, chosen, "calibration/times")


def measured_errors(
    assembly: Assembly, model: MergedDenoiser, examples: Examples, chosen: Tensor, purpose: str
) -> ExpertErrors:
    """Measure the errors on given examples, at low-discrepancy noise levels."""
    a, size = assembly, assembly.spec.evaluation.batch_size
    times = a.streams.low_discrepancy(len(chosen), purpose)
    parts = []
    for start in range(0, len(chosen), size):
        numbers = chosen[start : start + size]
        levels = examples.images(numbers).long().to(a.device)
        batch = times[start : start + len(numbers)].to(a.device)
        items = Trajectories(a.streams, torch.arange(start, start + len(numbers)))
        parts.append(expert_errors(model, a.schedule, a.image, levels, batch, items))
    return concatenate(parts)
