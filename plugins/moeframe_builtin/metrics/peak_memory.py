"""Peak memory while sampling."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe_builtin.metrics.support.sampling_run import run_facts, sample_once

_MIB = 2**20


class PeakMemoryMetric(Metric):
    """Peak memory while sampling one batch, MiB: CUDA's allocator, or the resident set of the process on CPU."""

    ROLE = "cost"
    DETERMINISTIC = False

    class Config(Metric.Config):
        type: Literal["peak_memory"] = "peak_memory"
        batch_size: int = Field(default=16, ge=1)

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """The peak, and what was in use before as a part."""
        on_cuda = evaluation.device.type == "cuda"
        meter = _cuda_peak(evaluation.device) if on_cuda else _resident_peak()
        with meter as peak:
            sample_once(evaluation, self.config.batch_size)
        return Measurement(
            value=peak["peak"],
            unit="MiB",
            better="lower",
            n=1,
            parts={"before_sampling": peak["before"]},
            how={
                **run_facts(evaluation, self.config.batch_size),
                "kind": "memory of the GPU that torch has given to tensors" if on_cuda else "resident memory (RSS)",
                "source": "torch.cuda.max_memory_allocated"
                if on_cuda
                else "resident set of the process, torch included, sampled every 2 ms",
            },
        )


@contextmanager
def _cuda_peak(device: torch.device) -> Iterator[dict[str, float]]:
    torch.cuda.reset_peak_memory_stats(device)
    figures = {"before": torch.cuda.memory_allocated(device) / _MIB}
    yield figures
    figures["peak"] = torch.cuda.max_memory_allocated(device) / _MIB


@contextmanager
def _resident_peak() -> Iterator[dict[str, float]]:
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
