"""Fréchet inception distance: the Fréchet distance in Inception features.

Heusel et al. 2017, https://arxiv.org/abs/1706.08500.
"""

from typing import Literal

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.metrics.frechet import FrechetConfig, measure_frechet
from moeframe_builtin.metrics.support.feature_source import FeatureSource, why_no_space


class FidMetric(Metric):
    """Fréchet inception distance between samples and real images (Heusel et al. 2017)."""

    ROLE = "quality"

    class Config(FrechetConfig):
        type: Literal["fid"] = "fid"
        features: Literal["inception"] = "inception"

    config: Config

    def unavailable(self) -> str | None:
        """torch-fidelity, or the weights of Inception."""
        return why_no_space(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Samples against reference images, beside the same distance between real images."""
        return measure_frechet(self.config, FeatureSource(self.config, evaluation), "FID, {} features", "")
