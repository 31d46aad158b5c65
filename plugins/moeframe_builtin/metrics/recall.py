"""Recall: how many real images lie among samples (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991)."""

from typing import Literal

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.features.space import why_missing
from moeframe_builtin.metrics.support.feature_source import why_no_space
from moeframe_builtin.metrics.support.precision_recall import PACKAGES, PrecisionRecallConfig, measured, measurement


class RecallMetric(Metric):
    """Recall: the share of real images that lie among samples in a feature space; falls with missing modes."""

    ROLE = "diversity"

    class Config(PrecisionRecallConfig):
        type: Literal["recall"] = "recall"

    config: Config

    def unavailable(self) -> str | None:
        """torch-fidelity, or what the feature space lacks."""
        return why_missing(PACKAGES) or why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Beside the share of reference images that lie among other real images."""
        source, found = measured(self.config, evaluation)
        means = "share of reference images within the distance of a sample to its neighbour number "
        return measurement("recall", self.config, source, {k: each.recall for k, each in found.items()}, means)
