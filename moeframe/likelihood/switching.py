"""A hard switch between experts by log-SNR alone: its bound, and the thresholds that minimise it, without sampling.

The bound is an integral over λ, and a switch evaluates one expert at each λ. Its diffusion part is thus the sum of the
experts' own parts over their bands, and the best thresholds follow from the errors of each expert alone.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Integer
from torch import Tensor

from moeframe.errors import RangeError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import ExpertErrors
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.importance import LogSnrDensity
from moeframe.model.mixture import ROUNDING, MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.shapes import Levels, LogSnr, PerItem, Times


def band_of(log_snr: LogSnr, thresholds: Tensor) -> Integer[Tensor, " batch"]:
    """How many of the increasing thresholds each log-SNR has reached: 0 below the first, in the noise."""
    return (log_snr[:, None] >= thresholds).sum(1)


@torch.no_grad()
def expert_errors(
    model: MergedDenoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    times: Times,
    items: Trajectories,
) -> ExpertErrors:
    """One draw of each expert's diffusion term for each image, all at the log-SNR and with the noise of that image.

    The draws are those of `continuous_bound` with the same `times` and `items`. Where an expert cannot be evaluated its
    error is infinite.
    """
    columns = []
    log_snr = LogSnrDensity.uniform(schedule).log_snr(times)
    ranges = tuple(model.range_of(k) for k in range(len(model.experts)))
    for k, (low, high) in enumerate(ranges):
        own = torch.nonzero((log_snr >= low - ROUNDING) & (log_snr <= high + ROUNDING)).squeeze(1)
        bits = torch.full((len(times),), math.inf, dtype=torch.float64, device=times.device)
        if len(own):
            numbers = Trajectories(items.streams, items.ids[own.cpu()])
            bound = continuous_bound(model.alone(k).eval(), schedule, image, levels[own], times[own], numbers)
            bits[own] = bound.diffusion.double()
        columns.append(bits)
    return ExpertErrors(log_snr, torch.stack(columns, 1), ranges)


def concatenate(parts: Sequence[ExpertErrors]) -> ExpertErrors:
    """Join the errors of several batches."""
    log_snr, bits = torch.cat([part.log_snr for part in parts]), torch.cat([part.bits for part in parts])
    return ExpertErrors(log_snr, bits, parts[0].ranges)


def switched_bits(errors: ExpertErrors, thresholds: Sequence[float]) -> PerItem:
    """The merge's diffusion term of each draw when it switches there; exact, because one expert is used at each λ."""
    at = torch.tensor(list(thresholds), dtype=torch.float64, device=errors.log_snr.device)
    return errors.bits.gather(1, band_of(errors.log_snr, at)[:, None]).squeeze(1)


def error_curves(errors: ExpertErrors, bins: int) -> tuple[Tensor, Tensor]:
    """Mean log-SNR of each of `bins` equal parts of the draws, noisy to clean, and each expert's mean error there."""
    order = errors.log_snr.argsort()
    parts = [part for part in order.tensor_split(bins) if len(part)]
    log_snr = torch.stack([errors.log_snr[part].double().mean() for part in parts])
    return log_snr, torch.stack([errors.bits[part].mean(0) for part in parts])


def best_thresholds(errors: ExpertErrors) -> tuple[float, ...]:
    """The K - 1 thresholds, noisy to clean, that minimise the mean of `switched_bits`: exact, by dynamic programming.

    A threshold is midway between two draws, or nearest to that within the experts' ranges. It is -inf or +inf where
    an expert is best left out at that end, and equal to the next where one between others is. Of equal choices the
    lower-numbered experts are taken. Raises RangeError where no order of bands keeps every expert within its range.
    """
    levels, inverse = torch.unique(errors.log_snr.double().cpu(), return_inverse=True)
    n_experts = errors.bits.shape[1]
    # no threshold separates draws at one log-SNR
    bits = torch.zeros(len(levels), n_experts, dtype=torch.float64).index_add(0, inverse, errors.bits.double().cpu())
    best = torch.zeros(n_experts, dtype=torch.float64)
    before = []
    for row in bits:
        reached = best.cummin(0)  # the band below ends with this expert or one before it
        before.append(_first_of_equal(reached.values, reached.indices))
        best = reached.values + row
    if not bool(best.isfinite().any()):
        raise RangeError(
            "no switch keeps every expert within its log-SNR range: list the experts from noisy to clean, widen them "
            "with outside: clamp, or narrow the schedule's log_snr_min / log_snr_max"
        )
    expert = int(best.argmin())
    bands = []
    for previous in reversed(before):
        bands.append(expert)
        expert = int(previous[expert])
    ranges = errors.ranges or ((-math.inf, math.inf),) * n_experts
    return tuple(_threshold(levels.tolist(), bands[::-1], ranges, k) for k in range(1, n_experts))


def _first_of_equal(values: Tensor, indices: Tensor) -> Tensor:
    """cummin names the last of equal minima; the first is the lower-numbered expert."""
    first = indices.clone()
    for k in range(1, len(values)):
        if values[k] == values[k - 1]:
            first[k] = first[k - 1]
    return first


def _threshold(levels: Sequence[float], bands: Sequence[int], ranges: Sequence[tuple[float, float]], k: int) -> float:
    """Start of the band of expert k or of one after it."""
    first = next((i for i, band in enumerate(bands) if band >= k), None)
    if first is None:
        return math.inf
    if first == 0:
        return -math.inf
    middle, (_, end), (begin, _) = (
        (levels[first - 1] + levels[first]) / 2,
        ranges[bands[first - 1]],
        ranges[bands[first]],
    )
    return min(max(middle, begin), end)
