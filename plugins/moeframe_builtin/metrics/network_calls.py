"""Number of expert evaluations."""

from typing import Literal

from pydantic import Field

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.metrics.support.sampling_run import run_facts, sample_once


class NetworkCallsMetric(Metric):
    """Expert evaluations per sampled image, counted while sampling."""

    ROLE = "cost"

    class Config(Metric.Config):
        type: Literal["network_calls"] = "network_calls"
        batch_size: int = Field(default=16, ge=1)

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Counted by the sampler over one batch."""
        last = sample_once(evaluation, self.config.batch_size)
        calls = last.network_calls / self.config.batch_size
        return Measurement(
            value=calls,
            unit="expert evaluations/image",
            better="lower",
            n=self.config.batch_size,
            parts={"per_step": calls / evaluation.sampler.config.steps},
            how=run_facts(evaluation, self.config.batch_size),
        )
