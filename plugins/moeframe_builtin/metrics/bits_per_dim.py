"""Likelihood: the continuous-time variational bound on held-out images."""

import math
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.randomness import Trajectories


class BitsPerDimMetric(Metric):
    """Upper bound on -log2 p(x) per dimension of held-out images (VDM's continuous bound)."""

    class Config(Metric.Config):
        type: Literal["bits_per_dim"] = "bits_per_dim"
        images: int | None = Field(default=None, ge=2, description="test images, from the first; all if not given")
        repeats: int = Field(default=4, ge=2, description="independent draws of times and noise for every image")

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images and draws; the interval is over images, the Monte Carlo error of the draws is a part."""
        bounds = [self._draw(evaluation, repeat) for repeat in range(self.config.repeats)]
        per_image = torch.stack([bound.total for bound in bounds]).mean(0)
        n = len(per_image)
        value = float(per_image.mean())
        error = standard_error(bounds)
        means = torch.stack([bound.total.mean() for bound in bounds])
        schedule = evaluation.schedule
        return Measurement(
            value=value,
            unit="bits/dim",
            better="lower",
            n=n,
            interval=(value - 1.96 * error, value + 1.96 * error),
            parts={
                "reconstruction": _mean(bounds, "reconstruction"),
                "prior": _mean(bounds, "prior"),
                "diffusion": _mean(bounds, "diffusion"),
                "standard_error": error,
                "monte_carlo_error": float(means.std()) / math.sqrt(len(means)),
            },
            how={
                "estimator": "continuous-time variational bound (VDM): reconstruction + prior + diffusion",
                "split": "test",
                "images": n,
                "draws_per_image": self.config.repeats,
                "times": "low-discrepancy over the split, uniform in log-SNR",
                "log_snr_range": [schedule.log_snr_min, schedule.log_snr_max],
                "levels": evaluation.image.levels,
                "uniform_model": math.log2(evaluation.image.levels),
                "interval_method": "95 %, normal, standard error over test images; each draw against those at "
                "neighbouring noise levels, because the times of a draw are low-discrepancy",
                "monte_carlo_error": "standard error of the mean over the independent draws, for these test images",
            },
        )

    def _draw(self, evaluation: Evaluation, repeat: int) -> Bound:
        n = len(evaluation.test) if self.config.images is None else min(self.config.images, len(evaluation.test))
        times = evaluation.streams.low_discrepancy(n, "bits_per_dim/times", repeat)
        # Neighbouring images (of one folder, say) should not get neighbouring noise levels.
        times = times[evaluation.streams.permutation(n, "bits_per_dim/order", repeat)]
        parts = []
        for start, levels in evaluation.test_batches(n):
            stop = start + len(levels)
            parts.append(
                continuous_bound(
                    evaluation.denoiser,
                    evaluation.schedule,
                    evaluation.image,
                    levels.to(evaluation.device),
                    times[start:stop].to(evaluation.device),
                    Trajectories.numbered(evaluation.streams, repeat * n + start, repeat * n + stop),
                )
            )
        return Bound.concatenate(parts)


def _mean(bounds: list[Bound], part: str) -> float:
    return float(torch.stack([getattr(bound, part).mean() for bound in bounds]).mean())
