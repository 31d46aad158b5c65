"""LPIPS of reconstructions of test images (Zhang et al. 2018, https://arxiv.org/abs/1801.03924)."""

from typing import Literal

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.metrics.support.lpips_network import LpipsConfig, lpips_network, why_unavailable
from moeframe_builtin.metrics.support.reconstruction import Figure, ReconstructionConfig, measure_reconstructions


class LpipsMetric(Metric):
    """Learned perceptual distance of reconstructions to their originals (Zhang et al. 2018, package `lpips`)."""

    ROLE = "reconstruction"

    class Config(ReconstructionConfig, LpipsConfig):
        type: Literal["lpips"] = "lpips"

    config: Config

    def unavailable(self) -> str | None:
        """The package, or the file of backbone weights."""
        return why_unavailable(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images of each image's distance to its original."""
        network = lpips_network(evaluation, self.config)
        return measure_reconstructions(
            evaluation,
            self.config,
            Figure(network.unit, "lower", network.how),
            lambda pairs: network.distances(pairs.originals, pairs.images),
        )
