"""Fréchet distance in a stated feature space. Only Inception features make it an FID, which is the metric `fid`."""

from typing import Literal

from pydantic import Field

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.catalogue import SpaceName
from moeframe_builtin.metrics.feature_source import MANY, FeatureConfig, FeatureSource, why_no_space
from moeframe_builtin.metrics.frechet_distance import (
    Estimate,
    distance_at_infinite_n,
    fewest_to_extrapolate,
    frechet_distance,
    frechet_estimate,
)

INTERVAL_FROM = 400
"""Images from which the interval is given, if 2 a feature: from here on it covers 93.5 % and more in simulations."""
INTERVAL_RATIO = 2


class FrechetConfig(FeatureConfig):
    """Settings of a Fréchet distance."""

    allow_small_n: bool = Field(
        default=False, description="measure with fewer images than features, where the covariances are singular"
    )
    extrapolate: bool = Field(default=False, description="add the distance at infinite N, a line over 1/N (part)")


class FrechetMetric(Metric):
    """Fréchet distance between samples and real images in a chosen feature space (not an FID)."""

    class Config(FrechetConfig):
        type: Literal["frechet"] = "frechet"
        features: SpaceName = "efficientnet_lite0"

    config: Config

    def unavailable(self) -> str | None:
        """What the feature space lacks."""
        return why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Samples against reference images, beside the same distance between real images."""
        source = FeatureSource(self.config, evaluation)
        return measure_frechet(self.config, source, "Fréchet distance, {} features", "not an FID; ")


def measure_frechet(config: FrechetConfig, source: FeatureSource, unit: str, caution: str) -> Measurement:
    """The distance with its floor and its interval; `unit` has room for the name of the space.

    Raises UnavailableError for fewer images than features, unless the config allows it.
    """
    n, dims = source.n, source.dims
    if n < dims and not config.allow_small_n:
        raise UnavailableError(
            f"{n} images are fewer than the {dims} {source.space.name} features, so their covariances are singular and "
            f"the distance is mostly bias; take more images (samples: {dims} or more; reference: train), or set "
            "allow_small_n: true and compare at this N only"
        )
    reference = source.reference.features
    estimate = frechet_estimate(source.sampled.features, reference)
    interval, interval_method = _interval(estimate, n, dims)
    floor = frechet_distance(source.floor.features, reference[: source.floor_n])
    parts = {"real_against_real": floor}
    how = {
        **source.how(),
        "distance": "‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½), float64, unbiased covariances",
        "interval_method": interval_method,
    }
    if config.extrapolate:
        fewest = fewest_to_extrapolate(dims)
        if n < fewest:
            how["at_infinite_n"] = f"none: {n} images; needs {fewest}, more than 3 for each of {dims} features"
        else:
            parts["at_infinite_n"] = distance_at_infinite_n(source.sampled.features, reference)
            how["at_infinite_n"] = (
                f"intercept of a line over 1/N at N = {n}, {n // 2}, {n // 3}, mean of disjoint blocks of samples and "
                "reference alike (after Chong and Forsyth 2020)"
            )
    if caution or n < MANY:
        floor_of = "the floor" if source.floor_n == n else f"not with the floor, which is at N = {source.floor_n}"
        bias = (
            f"biased upward at N = {n}: compare only at equal N, and {'with ' if source.floor_n == n else ''}{floor_of}"
        )
        how["caution"] = caution + bias
    return Measurement(
        value=estimate.value,
        unit=unit.format(source.space.name),
        better="lower",
        n=n,
        interval=interval,
        parts=parts,
        how=how,
    )


def _interval(estimate: Estimate, n: int, dims: int) -> tuple[tuple[float, float] | None, str]:
    needed = max(INTERVAL_FROM, INTERVAL_RATIO * dims)
    if n < needed:
        return None, f"none: {n} images; the error of the distance is known from {needed} (2 per feature) on"
    half = 1.96 * estimate.standard_error
    method = "95 %, normal, infinitesimal jackknife over samples and reference, about the mean distance at this N"
    return (max(0.0, estimate.value - half), estimate.value + half), method
