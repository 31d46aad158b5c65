"""Fréchet distance in a chosen feature space; only with Inception features is it an FID (metric `fid`).

Dowson and Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X; Heusel et al. 2017,
https://arxiv.org/abs/1706.08500.
"""

from typing import Literal

from pydantic import Field

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.catalogue import SpaceName
from moeframe_builtin.metrics.support.feature_source import MANY, FeatureConfig, FeatureSource, why_no_space
from moeframe_builtin.metrics.support.frechet_distance import (
    Rows,
    distance_at_infinite_n,
    fewest_to_extrapolate,
    frechet_distance,
    frechet_estimate,
)

INTERVAL_FROM = 400
"""Images from which the interval is given, if 4 a feature.

In simulations with Gaussian and EfficientNet's features it covers 93.5 to 96.5 % from here on.
"""
INTERVAL_RATIO = 4
SIMULATED_TO = 256
"""Features of the largest space whose intervals were simulated; the larger ones take days."""


class FrechetConfig(FeatureConfig):
    """Settings of a Fréchet distance."""

    allow_small_n: bool = Field(
        default=False, description="measure with fewer images than features, where the covariances are singular"
    )
    extrapolate: bool = Field(default=False, description="add the distance at infinite N, a line over 1/N (part)")


class FrechetMetric(Metric):
    """Fréchet distance between samples and real images in a chosen feature space (not an FID)."""

    ROLE = "quality"

    class Config(FrechetConfig):
        type: Literal["frechet"] = "frechet"
        features: SpaceName = "efficientnet_lite0"

    config: Config

    def unavailable(self) -> str | None:
        """Why the feature space is unavailable, or None."""
        return why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Samples against reference images, beside the same distance between real images."""
        source = FeatureSource(self.config, evaluation)
        caution = "" if self.config.features == "inception" else "not an FID; "
        return measure_frechet(self.config, source, "Fréchet distance, {} features", caution)


def measure_frechet(config: FrechetConfig, source: FeatureSource, unit: str, caution: str) -> Measurement:
    """The distance with its floor and its interval; `unit` has room for the name of the space.

    Raises UnavailableError for fewer images than features, unless the config allows it.
    """
    n, dims = source.n, source.dims
    least = source.fewest
    if least < dims and not config.allow_small_n:
        raise UnavailableError(
            f"{least} images are fewer than the {dims} {source.space.name} features, so their covariances are singular "
            f"and the distance is mostly bias; take more images (samples: {dims} or more; reference: train), or set "
            "allow_small_n: true and compare at this N only"
        )
    reference = source.reference.features
    value, interval, interval_method = _with_interval(source.sampled.features, reference)
    parts, few = {}, source.floor_n
    if few >= dims or config.allow_small_n:
        parts["real_against_real"] = frechet_distance(source.floor.features, reference[:few])
        if source.floor_is_of_fewer:
            parts["at_floor_n"] = frechet_distance(source.sampled.features[:few], reference[:few])
    how = {
        **source.how(),
        **({} if parts else {"real_against_real": f"none: {few} real images on a side are fewer than {dims} features"}),
        "distance": "‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½), float64, unbiased covariances",
        "interval_method": interval_method,
    }
    if config.extrapolate:
        fewest = fewest_to_extrapolate(dims)
        if least < fewest:
            how["at_infinite_n"] = f"none: {least} images; needs {fewest}, more than 3 for each of {dims} features"
        else:
            parts["at_infinite_n"] = distance_at_infinite_n(source.sampled.features[:least], reference[:least])
            how["at_infinite_n"] = (
                f"intercept of a line over 1/N at N = {least}, {least // 2}, {least // 3}, mean of disjoint blocks of "
                "samples and reference alike (after Chong and Forsyth 2020); no interval is known"
            )
    if caution or least < MANY:
        how["caution"] = f"{caution}biased upward at {source.sizes}: compare only at equal N"
        if "real_against_real" in parts:
            how["caution"] += (
                ", and at_floor_n with real_against_real" if source.floor_is_of_fewer else " and with the floor"
            )
    return Measurement(
        value=value,
        unit=unit.format(source.space.name),
        better="lower",
        n=n,
        interval=interval,
        parts=parts,
        how=how,
    )


def _with_interval(sampled: Rows, reference: Rows) -> tuple[float, tuple[float, float] | None, str]:
    """(distance, interval, its method or why there is none)."""
    n, dims = min(len(sampled), len(reference)), sampled.shape[1]
    needed = max(INTERVAL_FROM, INTERVAL_RATIO * dims)
    if n < needed:
        why = f"none: {n} images; the error of the distance is known from {needed} ({INTERVAL_RATIO} per feature) on"
        return frechet_distance(sampled, reference), None, why
    estimate = frechet_estimate(sampled, reference)
    half = 1.96 * estimate.standard_error
    method = "95 %, normal, jackknife over samples and reference, bias-corrected, about the mean distance at this N"
    if dims > SIMULATED_TO:
        method += f"; simulations that show its coverage end at {SIMULATED_TO} features"
    return estimate.value, (max(0.0, estimate.value - half), estimate.value + half), method
