"""Inception score: how certain the class of each sample is, and how varied the classes are.

Salimans et al. 2016, https://arxiv.org/abs/1606.03498.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.space import Extracted
from moeframe_builtin.metrics.support.feature_source import MANY, FeatureConfig, FeatureSource, why_no_space

Logits = Float[Tensor, "_ classes"]
SEED = 2020
"""torch-fidelity's, of the order in which images are dealt to the splits."""
INTERVAL_FROM = 2000
"""Images in a split from which the interval is given: with Inception's 1,008 classes fewer make it too short."""


class InceptionScoreMetric(Metric):
    """Inception score of the samples (Salimans et al. 2016), the mean over splits."""

    ROLE = "quality"

    class Config(FeatureConfig):
        type: Literal["inception_score"] = "inception_score"
        features: Literal["inception"] = "inception"
        splits: int = Field(default=10, ge=1, description="equal parts of the samples, each with its own score")

    config: Config

    def unavailable(self) -> str | None:
        """torch-fidelity, or the weights of Inception."""
        return why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over splits, beside the score of as many real images. Raises UnavailableError for splits of one."""
        source = FeatureSource(self.config, evaluation, compared=False)
        splits = self.config.splits
        if source.n < 2 * splits:
            raise UnavailableError(
                f"{source.n} samples in {splits} splits leave a split with one; set splits: {source.n // 2} or fewer, "
                "or more samples"
            )
        mean, sd = inception_score(_logits(source.sampled), splits)
        interval, method = None, f"none: {source.n // splits} images a split; the error is known from {INTERVAL_FROM}"
        if source.n // splits >= INTERVAL_FROM:
            half = 1.96 * score_standard_error(_logits(source.sampled), splits)
            interval = (mean - half, mean + half)
            method = "95 %, normal, infinitesimal jackknife within splits, about the mean score at this split size"
        how = {
            name: text
            for name, text in source.how().items()
            if name not in ("against", "real_against_real", "at_floor_n")
        }
        how |= {
            "splits": f"mean of {splits} splits of about {source.n // splits} images, as torch-fidelity",
            "interval_method": method,
        }
        parts, few = {"sd_of_splits": sd}, source.fewest
        if few < 2 * splits:
            how["real_images"] = f"none: {few} {self.config.reference} images in {splits} splits leave one with one"
        else:
            how["real_images"] = f"the score of {few} {self.config.reference} images in as many splits"
            parts["real_images"] = inception_score(_logits(source.reference)[:few], splits)[0]
            if few < source.n:
                parts["at_floor_n"] = inception_score(_logits(source.sampled)[:few], splits)[0]
                how["at_floor_n"] = f"the score of {few} samples, to compare with real_images"
        if source.n < MANY:
            how["caution"] = f"biased downward at {source.n // splits} images a split: compare only at equal N"
        return Measurement(
            value=mean,
            unit=f"Inception score{'' if source.space.name == 'Inception' else f', {source.space.name}'}",
            better="higher",
            n=source.n,
            interval=interval,
            parts=parts,
            how=how,
        )


def inception_score(logits: Logits, splits: int) -> tuple[float, float]:
    """(mean, sd) over splits of exp(mean KL(p(class | image) ‖ p(class))), by torch-fidelity in float64."""
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=SEED)
    return float(found[KEY_METRIC_ISC_MEAN]), float(found[KEY_METRIC_ISC_STD])


def score_standard_error(logits: Logits, splits: int) -> float:
    """Standard error of the mean over splits, by the infinitesimal jackknife.

    An image moves the logarithm of its split's score by (KL(p(class | image) ‖ p(class)) - their mean) over the size of
    the split: the derivative of the entropy of p(class) cancels the rest. Splits are independent.
    """
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(SEED))
    variance = 0.0
    for split in torch.tensor_split(logits[order].double(), splits):
        log_p = split.log_softmax(dim=1)
        log_marginal = log_p.logsumexp(dim=0) - math.log(len(split))
        divergence = (log_p.exp() * (log_p - log_marginal)).sum(dim=1)
        variance += float(divergence.mean().exp()) ** 2 * float(divergence.var()) / len(split)
    return math.sqrt(variance) / splits


def _logits(extracted: Extracted) -> Logits:
    assert extracted.logits is not None, "Inception has classes"
    return extracted.logits
