"""Improved precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991), computed once for both.

Two metrics, because a generator may be good at either alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement
from moeframe_builtin.features.catalogue import SpaceName
from moeframe_builtin.metrics.support.feature_source import MANY, FeatureConfig, FeatureSource

PACKAGES = ("torch_fidelity",)
BLOCK = 1024
"""Rows whose distances to all others are in memory at a time."""

Rows = Float[Tensor, "_ features"]


class PrecisionRecallConfig(FeatureConfig):
    """Settings of both metrics."""

    features: SpaceName = "efficientnet_lite0"
    neighbours: int = Field(default=3, ge=1, description="the ball around an image reaches to this neighbour")


@dataclass(frozen=True)
class PrecisionRecall:
    """Both shares, in [0, 1]."""

    precision: float
    recall: float


def precision_recall(generated: Rows, real: Rows, neighbours: int) -> PrecisionRecall:
    """Precision and recall of generated features against real ones, by torch-fidelity in float64."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(
        generated.double(),  # of near rows float32 leaves few digits of a distance
        real.double(),
        prc_neighborhood=neighbours,
        prc_batch_size=BLOCK,
        save_cpu_ram=True,
        verbose=False,
    )
    return PrecisionRecall(float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL]))


def measured(
    config: PrecisionRecallConfig, evaluation: Evaluation
) -> tuple[FeatureSource, Mapping[str, PrecisionRecall]]:
    """The source, and both shares of samples ("value") and, by name, its parts; computed once for the two metrics."""
    source = FeatureSource(config, evaluation)
    k = config.neighbours
    if source.floor_n <= k:
        raise UnavailableError(
            f"{source.floor_n} images have no neighbour number {k}; set neighbours: {max(1, source.floor_n - 1)} or "
            "fewer, or take more images"
        )

    def compute() -> Mapping[str, PrecisionRecall]:
        reference, sampled, few = source.reference.features, source.sampled.features, source.floor_n
        found = {"value": precision_recall(sampled, reference, k)}
        found["real_against_real"] = precision_recall(source.floor.features, reference[:few], k)
        if source.floor_is_of_fewer:
            found["at_floor_n"] = precision_recall(sampled[:few], reference[:few], k)
        return found

    key = ("precision and recall", config.features, config.settings, config.reference, source.n, source.reference_n, k)
    return source, evaluation.once(key, compute)


def measurement(
    what: str, config: PrecisionRecallConfig, source: FeatureSource, found: Mapping[str, float], means: str
) -> Measurement:
    """One of the two metrics with its parts; `means` is what it counts, in words, up to the neighbour's number."""
    value = found["value"]
    how = {
        **source.how(),
        "means": f"{means}{config.neighbours}; torch-fidelity, float64",
        "interval_method": "none: the balls of all images overlap, and no interval was verified",
    }
    if source.fewest < MANY:
        floor = "at_floor_n with real_against_real" if source.floor_is_of_fewer else "with real_against_real"
        how["caution"] = f"balls shrink as N grows: compare only at {source.sizes}, and {floor}"
    return Measurement(
        value=value,
        unit=f"{what}, {source.space.name} features",
        better="higher",
        n=source.n,
        parts={name: share for name, share in found.items() if name != "value"},
        how=how,
    )
