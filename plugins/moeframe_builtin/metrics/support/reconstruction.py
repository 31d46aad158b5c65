"""Scores of reconstructions of test images: at one noise level, and as a curve over noise levels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Better, Evaluation, Measurement, Metric, Reconstructions, which_images
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.stats.intervals import mean, skewed_interval

Score = Callable[[Reconstructions], list[float]]
"""One score per image; infinite for an exact reconstruction without a finite score."""

MOST_IMAGES = 256
"""Test images used if the spec does not say how many."""

_ROUNDING = 1e-6
"""Rounding may move a log-SNR beyond the ends of the schedule by this much."""


class ReconstructionConfig(Metric.Config):
    """Which reconstructions are compared."""

    log_snr: float = Field(default=0.0, description="noise level from which images are reconstructed, for the value")
    curve: list[float] = Field(default=[-4.0, -2.0, 0.0, 2.0, 4.0], description="log-SNRs of a curve beside the value")
    images: int | None = Field(
        default=None, ge=2, description="test images; 256, or all where there are fewer, if not given"
    )


@dataclass(frozen=True)
class Figure:
    """Name of a score, and how it was computed."""

    unit: str
    better: Better
    how: Mapping[str, Any]


def measure_reconstructions(
    evaluation: Evaluation, config: ReconstructionConfig, figure: Figure, score: Score
) -> Measurement:
    """The mean score over images at `config.log_snr`; the means along `config.curve` are parts named "log_snr -4".

    Exact reconstructions with an infinite score are left out and counted; a level of the curve where all are exact has
    no part. Raises UnavailableError outside the schedule's range, and where fewer than two scores are finite.
    """
    _require_levels(evaluation.schedule, [config.log_snr, *config.curve])
    n = min(MOST_IMAGES, len(evaluation.test)) if config.images is None else config.images
    if n > len(evaluation.test):
        raise UnavailableError(
            f"fewer test images than requested: {len(evaluation.test)} for images: {n}; set images: "
            f"{len(evaluation.test)} or fewer, or leave it out"
        )
    scores = {
        level: score(evaluation.reconstructions(level, n)) for level in dict.fromkeys((config.log_snr, *config.curve))
    }
    finite = {level: [value for value in values if value != math.inf] for level, values in scores.items()}
    values = finite[config.log_snr]
    exact = {name_of(level): len(scores[level]) - len(finite[level]) for level in sorted(scores)}
    if len(values) < 2:
        raise UnavailableError(
            f"{exact[name_of(config.log_snr)]} of {len(scores[config.log_snr])} reconstructions are exact, "
            f"so their {figure.unit} is infinite; set a lower log_snr"
        )
    interval = skewed_interval(values, evaluation.streams.seed)
    return Measurement(
        value=mean(values),
        unit=figure.unit,
        better=figure.better,
        n=len(values),
        interval=interval.ends,
        parts={name_of(level): mean(finite[level]) for level in config.curve if finite[level]},
        how={
            **figure.how,
            "pairs": f"{which_images(n, len(evaluation.test))} and their reconstructions",
            "from_log_snr": config.log_snr,
            "curve": "the parts: the same score of the same images, reconstructed from other noise levels",
            "sampler": "ddim, 50 steps in schedule time, each prediction of the image clipped to the data's range",
            "levels": evaluation.image.levels,
            "interval_method": interval.method,
            **({"exact_left_out": exact} if any(exact.values()) else {}),
        },
    )


def name_of(log_snr: float) -> str:
    """The name of a part.

    >>> name_of(-4.0)
    'log_snr -4'
    """
    return f"log_snr {log_snr:g}"


def image_pairs(pairs: Reconstructions) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(original, reconstruction) of each image, levels as (height, width, channels)."""
    originals, images = (levels.permute(0, 2, 3, 1).double().numpy() for levels in (pairs.originals, pairs.images))
    return list(zip(originals, images, strict=True))


def _require_levels(schedule: NoiseSchedule, levels: list[float]) -> None:
    low, high = schedule.log_snr_min, schedule.log_snr_max
    outside = [level for level in levels if not low - _ROUNDING <= level <= high + _ROUNDING]
    if outside:
        raise UnavailableError(
            f"log_snr {', '.join(f'{level:g}' for level in outside)} is outside the schedule's range "
            f"{low:g} .. {high:g}; set log_snr and curve within it"
        )
