"""Cost of sampling: latency, memory, parameters and network calls."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.interfaces.sampler import SamplerState
from moeframe.randomness import Trajectories


def _sample_once(evaluation: Evaluation, batch_size: int) -> SamplerState:
    items = Trajectories.numbered(evaluation.streams, 0, batch_size)
    noise = items.normal(evaluation.image.tensor_shape, "sampling/noise").to(evaluation.device)
    with torch.no_grad():
        *_, last = evaluation.sampler.trajectory(evaluation.denoiser, noise, items)
    if evaluation.device.type == "cuda":
        torch.cuda.synchronize(evaluation.device)
    return last


def _sampler_facts(evaluation: Evaluation, batch_size: int) -> dict[str, object]:
    return {
        "sampler": f"{evaluation.sampler.name()}, {evaluation.sampler.config.steps} steps",
        "batch_size": batch_size,
        "device": str(evaluation.device),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }


class LatencyMetric(Metric):
    """Time to sample one image, milliseconds: median over repeats of a whole batch, divided by its size."""

    DETERMINISTIC = False

    class Config(Metric.Config):
        type: Literal["latency"] = "latency"
        batch_size: int = Field(default=16, ge=1)
        repeats: int = Field(default=5, ge=2)
        warm_up: int = Field(default=1, ge=0, description="runs before the clock starts")

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Median, with quartiles as parts."""
        for _ in range(self.config.warm_up):
            _sample_once(evaluation, self.config.batch_size)
        times = []
        for _ in range(self.config.repeats):
            start = time.perf_counter()
            _sample_once(evaluation, self.config.batch_size)
            times.append(1000 * (time.perf_counter() - start) / self.config.batch_size)
        lower, median, upper = torch.tensor(times).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        return Measurement(
            value=median,
            unit="ms/image",
            better="lower",
            n=self.config.repeats,
            parts={"lower_quartile": lower, "upper_quartile": upper},
            how={
                **_sampler_facts(evaluation, self.config.batch_size),
                "repeats": self.config.repeats,
                "statistic": "median",
            },
        )


class PeakMemoryMetric(Metric):
    """Peak memory while sampling one batch, MiB: CUDA's allocator, or the whole process's resident set on CPU."""

    DETERMINISTIC = False

    class Config(Metric.Config):
        type: Literal["peak_memory"] = "peak_memory"
        batch_size: int = Field(default=16, ge=1)

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """The peak, and what was in use before as a part."""
        meter = _cuda_peak if evaluation.device.type == "cuda" else _resident_peak
        with meter(evaluation.device) as peak:
            _sample_once(evaluation, self.config.batch_size)
        source = {
            "cuda": "torch.cuda.max_memory_allocated",
            "cpu": "resident set of the whole process, torch included, looked at every 2 ms",
        }[evaluation.device.type]
        return Measurement(
            value=peak["peak"],
            unit="MiB",
            better="lower",
            n=1,
            parts={"before_sampling": peak["before"]},
            how={**_sampler_facts(evaluation, self.config.batch_size), "source": source},
        )


_MIB = 2**20


@contextmanager
def _cuda_peak(device: torch.device) -> Iterator[dict[str, float]]:
    torch.cuda.reset_peak_memory_stats(device)
    figures = {"before": torch.cuda.memory_allocated(device) / _MIB}
    yield figures
    figures["peak"] = torch.cuda.max_memory_allocated(device) / _MIB


@contextmanager
def _resident_peak(device: torch.device) -> Iterator[dict[str, float]]:  # noqa: ARG001
    import psutil

    process = psutil.Process()
    seen = [process.memory_info().rss]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    figures = {"before": seen[0] / _MIB}
    watcher.start()
    try:
        yield figures
    finally:
        done.set()
        watcher.join()
    seen.append(process.memory_info().rss)
    figures["peak"] = max(seen) / _MIB


class ParametersMetric(Metric):
    """Parameters of the whole model; those active for one sample and step, and those of the gate, as parts."""

    class Config(Metric.Config):
        type: Literal["parameters"] = "parameters"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Counts; `active` averages over noise levels what one network call of the sampler uses."""
        sizes = [_count(expert) for expert in evaluation.experts]
        gate = _count(evaluation.gate) if evaluation.gate is not None else 0
        n, levels = 16, 8
        items = Trajectories.numbered(evaluation.streams, 0, n)
        z = items.normal(evaluation.image.tensor_shape, "parameters/probe").to(evaluation.device)
        used = 0.0
        for log_snr in evaluation.schedule.log_snr(torch.linspace(1, 0, levels)).tolist():
            with torch.no_grad():
                denoised = evaluation.denoiser(z, torch.full((n,), log_snr, device=z.device), items)
            used += sum(sizes[part.expert] * len(part.items) for part in denoised.contributions) / (n * levels)
        return Measurement(
            value=float(sum(sizes) + gate),
            unit="parameters",
            better="lower",
            n=1,
            parts={"active_per_sample": used + gate, "gate": float(gate), "largest_expert": float(max(sizes))},
            how={"counted": "every tensor once; active = gate + experts dispatched to, mean over noise levels"},
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class NetworkCallsMetric(Metric):
    """Expert evaluations per sampled image, counted while sampling."""

    class Config(Metric.Config):
        type: Literal["network_calls"] = "network_calls"
        batch_size: int = Field(default=16, ge=1)

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Counted by the sampler over one batch."""
        last = _sample_once(evaluation, self.config.batch_size)
        calls = last.network_calls / self.config.batch_size
        return Measurement(
            value=calls,
            unit="expert evaluations/image",
            better="lower",
            n=self.config.batch_size,
            parts={"per_step": calls / evaluation.sampler.config.steps},
            how=_sampler_facts(evaluation, self.config.batch_size),
        )
