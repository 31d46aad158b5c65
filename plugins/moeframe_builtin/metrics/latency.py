"""Time to sample an image, and the gate's share of it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.randomness import Trajectories
from moeframe.stats.intervals import median_interval
from moeframe_builtin.metrics.support.sampling_run import run_facts, sample_once, synchronise

_QUANTILES = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "p95": 0.95}


class LatencyMetric(Metric):
    """Time to sample one image, milliseconds: median over repeats of the time of a batch, divided by its size."""

    ROLE = "cost"
    DETERMINISTIC = False

    class Config(Metric.Config):
        type: Literal["latency"] = "latency"
        batch_size: int = Field(default=16, ge=1, description="images at a time, for the value")
        batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
            default=[1, 16], description="batch sizes whose times are given beside the value"
        )
        repeats: int = Field(default=10, ge=2, description="timed runs per batch size; from 6 on there is an interval")
        warm_up: int = Field(default=1, ge=0, description="runs before the clock starts")

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Median, with quartiles and 95th percentile, other batch sizes and the gate's share of a step as parts."""
        config = self.config
        times = self._times(evaluation, config.batch_size)
        found = _quantiles(times)
        value = found.pop("median")
        parts, how = found, {}
        for size in dict.fromkeys(config.batch_sizes):
            if size != config.batch_size:
                other = _quantiles(self._times(evaluation, size))
                parts |= {f"batch {size}: {name}": figure for name, figure in other.items()}
        if evaluation.gate is not None:
            parts["gate_share_of_step"], how["gate_share_of_step"] = self._gate_share(evaluation)
        interval = median_interval(times)
        return Measurement(
            value=value,
            unit="ms/image",
            better="lower",
            n=config.repeats,
            interval=interval.ends,
            parts=parts,
            how={
                **run_facts(evaluation, config.batch_size),
                **how,
                "repeats": config.repeats,
                "warm_up": config.warm_up,
                "statistic": "median over repeats of the time of a batch divided by its size, sampler included",
                "interval_method": f"{interval.method}, over repeats",
            },
        )

    def _times(self, evaluation: Evaluation, batch_size: int) -> list[float]:
        """Milliseconds per image of each repeat."""
        for _ in range(self.config.warm_up):
            sample_once(evaluation, batch_size)
        return [
            _milliseconds(lambda: sample_once(evaluation, batch_size)) / batch_size for _ in range(self.config.repeats)
        ]

    def _gate_share(self, evaluation: Evaluation) -> tuple[float, str]:
        """(median time of the gate alone / median time of one merged evaluation, what that is)."""
        gate, denoiser, n = evaluation.gate, evaluation.denoiser, self.config.batch_size
        assert gate is not None
        items = Trajectories.numbered(evaluation.streams, 0, n)
        z = items.normal(evaluation.image.tensor_shape, "sampling/noise").to(evaluation.device)
        middle = float(evaluation.schedule.log_snr(torch.tensor([0.5], dtype=torch.float64)))
        log_snr = torch.full((n,), middle, device=z.device)
        with torch.no_grad():
            features = evaluation.trunk(z, log_snr) if evaluation.trunk is not None else None

        def timed(step: Callable[..., Any]) -> float:
            def once() -> None:
                with torch.no_grad():
                    step(z, log_snr, items)
                synchronise(evaluation.device)

            return _milliseconds(once)

        repeats = range(self.config.warm_up + self.config.repeats)
        # alternating, so that a machine that grows busy slows both
        pairs = [(timed(partial(gate.route_from, features)), timed(denoiser)) for _ in repeats][self.config.warm_up :]
        alone, whole = torch.tensor(pairs, dtype=torch.float64).median(0).values.tolist()
        text = f"time of the gate alone / of one merged evaluation with gate and experts, at log_snr {middle:.3g}"
        return alone / whole, f"{text}, batch {n}, medians of {self.config.repeats}"


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    levels = torch.tensor(list(_QUANTILES.values()), dtype=torch.float64)
    figures = torch.tensor(times, dtype=torch.float64).quantile(levels).tolist()
    return dict(zip(_QUANTILES, figures, strict=True))
