"""Precision: how many samples lie among real images (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991)."""

from typing import Literal

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.space import why_missing
from moeframe_builtin.metrics.support.feature_source import why_no_space
from moeframe_builtin.metrics.support.precision_recall import PACKAGES, PrecisionRecallConfig, measured, measurement


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
        source, found = measured(self.config, evaluation)
        means = "share of samples within the distance of a reference image to its neighbour number "
        return measurement("precision", self.config, source, {k: each.precision for k, each in found.items()}, means)
