"""Comparing finished experts noise level by noise level: what a gate is calibrated by, and what a sweep adds up."""

import torch
from torch import Tensor

from moeframe.assembly import Assembly
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.gate import ExpertErrors
from moeframe.likelihood.switching import concatenate, expert_errors
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories


def calibration_errors(assembly: Assembly, model: MergedDenoiser) -> ExpertErrors:
    """The experts' errors on training images drawn at random, one noise level each; no sampling."""
    n = min(assembly.spec.training.calibration_images, len(assembly.train))
    chosen = assembly.streams.permutation(len(assembly.train), "calibration/images")[:n]
    return measured_errors(assembly, model, assembly.train, chosen, "calibration/times")


def measured_errors(
    assembly: Assembly, model: MergedDenoiser, examples: Examples, chosen: Tensor, purpose: str
) -> ExpertErrors:
    """The errors on the chosen examples, at noise levels that share out the range evenly."""
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
