"""Improved precision and recall: two figures, since a generator may be good at either (Kynkäänniemi et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.catalogue import SpaceName
from moeframe_builtin.features.space import why_missing
from moeframe_builtin.metrics.support.feature_source import MANY, FeatureConfig, FeatureSource, why_no_space

PACKAGES = ("torch_fidelity",)
BLOCK = 1024
"""Rows whose distances to all others are in memory at a time."""

Rows = Float[Tensor, "_ features"]


class PrecisionRecallConfig(FeatureConfig):
    """Settings of both figures."""

    features: SpaceName = "efficientnet_lite0"
    neighbours: int = Field(default=3, ge=1, description="the ball around an image reaches to this neighbour")


class PrecisionMetric(Metric):
    """Precision: the share of samples that lie among real images of a feature space; falls with poor images."""

    ROLE = "quality"

    class Config(PrecisionRecallConfig):
        type: Literal["precision"] = "precision"

    config: Config

    def unavailable(self) -> str | None:
        """torch-fidelity, or what the feature space lacks."""
        return why_missing(PACKAGES) or why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Beside the share of other real images that lie there."""
        source, found = _measured(self.config, evaluation)
        means = "share of samples within the distance of a reference image to its neighbour number "
        return _measurement("precision", self.config, source, {k: each.precision for k, each in found.items()}, means)


class RecallMetric(Metric):
    """Recall: the share of real images that lie among samples in a feature space; falls with what is never drawn."""

    ROLE = "diversity"

    class Config(PrecisionRecallConfig):
        type: Literal["recall"] = "recall"

    config: Config

    def unavailable(self) -> str | None:
        """torch-fidelity, or what the feature space lacks."""
        return why_missing(PACKAGES) or why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Beside the share of reference images that lie among other real images."""
        source, found = _measured(self.config, evaluation)
        means = "share of reference images within the distance of a sample to its neighbour number "
        return _measurement("recall", self.config, source, {k: each.recall for k, each in found.items()}, means)


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


def _measured(
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


def _measurement(
    what: str, config: PrecisionRecallConfig, source: FeatureSource, found: Mapping[str, float], means: str
) -> Measurement:
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
