"""Evaluation of one trained model: samples and reconstructions are drawn once and shared by all metrics."""

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from moeframe.assembly import Assembly
from moeframe.diffusion import add_noise, to_pixels
from moeframe.errors import NonFiniteError, RangeError, UnavailableError
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.metric import Evaluation, Measurement, Metric, Reconstructions
from moeframe.interfaces.sampler import SamplerState, last_state
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.sampling import ddim_trajectory
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, Levels
from moeframe.storage.sample_store import Samples, SampleStore

RECONSTRUCTION_STEPS = 50

Result = TypeVar("Result")


class ModelEvaluation(Evaluation):
    """One model with the data, schedule and sampler of its run; `folder` keeps its samples."""

    def __init__(self, assembly: Assembly, model: MergedDenoiser, folder: Path):
        self.assembly = assembly
        self.model = model.place(assembly.device, offload=assembly.spec.evaluation.offload).eval()
        self.denoiser = self.model
        self.experts = tuple(expert for expert in self.model.experts if isinstance(expert, Expert))
        self.gate = self.model.gate
        self.trunk = self.model.trunk
        self.schedule = assembly.schedule
        self.sampler = assembly.sampler
        self.image = assembly.image
        self.train = assembly.train
        self.test = assembly.test
        self.streams = assembly.streams
        self.device = assembly.device
        self.batch_size = assembly.spec.evaluation.batch_size
        self._folder = folder
        self._once: dict[Hashable, Any] = {}

    def sample_batches(self, n: int) -> Iterator[Levels]:
        """Yield the first n samples, drawn once and kept on disk. Raises UnavailableError if one is not finite."""
        broken = [
            self.batch_size * batch + int(row)
            for batch, samples in enumerate(self._store.batches(n))
            for row in torch.nonzero(~samples.finite)
        ]
        if broken:
            raise UnavailableError(
                f"{len(broken)} of {n} samples have pixels that are NaN or infinite ({_first(broken)}): see "
                "samples.png and the learning curves; train with a smaller learning rate, or sample with more steps"
            )
        for samples in self._store.batches(n):
            yield samples.levels

    def shown_samples(self, n: int) -> Samples:
        """Return the first n samples unchecked; non-finite pixels are black."""
        return Samples.joined(list(self._store.batches(n)))

    @cached_property
    def _store(self) -> SampleStore:
        return SampleStore(self._folder / "samples", self._model_key(), self.batch_size, self._draw)

    def _draw(self, start: int, stop: int) -> Samples:
        last = last_state(self.trajectory(start, stop))
        return Samples.of_pixels(last.z, self.image.levels)

    def _model_key(self) -> str:
        """Hash of what determines the samples: weights, sampler, noise levels and seed."""
        spec = self.assembly.spec.dump()
        settings = {name: spec[name] for name in ("schedule", "experts", "gate", "sampler")}
        settings |= {} if spec["trunk"] is None else {"trunk": spec["trunk"]}
        digest = hashlib.sha256(json.dumps([settings, asdict(self.image), self.streams.seed], sort_keys=True).encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result of the first call under this key."""
        if key not in self._once:
            self._once[key] = compute()
        result: Result = self._once[key]
        return result

    @torch.no_grad()
    def trajectory(self, start: int, stop: int) -> Iterator[SamplerState]:
        """Yield the states of samples start .. stop-1; the noise of a sample does not depend on its batch."""
        items = Trajectories.numbered(self.streams, start, stop)
        noise = items.normal(self.image.tensor_shape, "sampling/noise").to(self.device)
        yield from self.sampler.trajectory(self.denoiser, noise, items)

    def reconstructions(self, log_snr: float, n: int) -> Reconstructions:
        """Noise test images to `log_snr` (within the schedule) and denoise them with DDIM in evenly spaced time.

        Raises UnavailableError if one is not finite.
        """
        found = self.shown_reconstructions(log_snr, n)
        if broken := torch.nonzero(~found.finite).flatten().tolist():
            raise UnavailableError(
                f"{len(broken)} of {len(found.finite)} reconstructions from log-SNR {log_snr:g} have pixels "
                f"that are NaN or infinite ({_first(broken)}): see reconstructions.png and the learning curves; train "
                "with a smaller learning rate, or narrow the schedule's range"
            )
        originals = torch.cat([levels for _, levels in self.test_batches(n)])
        return Reconstructions(originals.long(), found.levels.long(), log_snr)

    def shown_reconstructions(self, log_snr: float, n: int) -> Samples:
        """Return reconstructions unchecked; non-finite pixels are black."""
        n = min(n, len(self.test))
        return self.once(("reconstructions", log_snr, n), lambda: self._reconstruct(log_snr, n))

    @torch.no_grad()
    def _reconstruct(self, log_snr: float, n: int) -> Samples:
        """Reconstruct; stored in the smallest integer type, because every noise level of a curve keeps its images."""
        stored = torch.uint8 if self.image.levels <= 256 else torch.int32
        time = float(self.schedule.time_of(torch.tensor([log_snr], dtype=torch.float64)))
        times = torch.linspace(time, 0.0, RECONSTRUCTION_STEPS, dtype=torch.float64)
        grid = self.schedule.log_snr(times).tolist()
        found = []
        for start, levels in self.test_batches(n):
            x = self.pixels(levels)
            items = Trajectories.numbered(self.streams, start, start + len(x))
            noise = items.normal(self.image.tensor_shape, "reconstruction/noise").to(x)
            z = add_noise(x, noise, torch.full((len(x),), log_snr, device=x.device))
            last = last_state(ddim_trajectory(self.denoiser, z, items, grid, clip=True))
            brought_back = Samples.of_pixels(last.z, self.image.levels)
            found.append(Samples(brought_back.levels.to(stored), brought_back.finite))
        return Samples.joined(found)

    def test_batches(self, n: int | None) -> Iterator[tuple[int, Levels]]:
        """Yield (position of the first image, images) for the n test images of `Assembly.test_numbers`."""
        numbers = self.assembly.test_numbers(n)
        for start in range(0, len(numbers), self.batch_size):
            yield start, self.test.images(numbers[start : start + self.batch_size]).long()

    def pixels(self, levels: Levels) -> Images:
        """Convert integer images to model input on the device."""
        return to_pixels(levels.to(self.device), self.image.levels)


def _first(numbers: Sequence[int]) -> str:
    return f"numbers {', '.join(map(str, numbers[:5]))}{' ...' if len(numbers) > 5 else ''}"


def measure(metric: Metric, evaluation: Evaluation) -> dict[str, Any]:
    """Return a metric's entry in metrics.json; an unavailable one says why, and whether something is `missing`."""
    reason = metric.unavailable()
    if reason is not None:
        return {"unavailable": reason, "missing": True}
    try:
        measurement = metric.measure(evaluation)
    except (UnavailableError, NonFiniteError, RangeError) as error:  # the other metrics are still measured
        return {"unavailable": str(error)}
    if not math.isfinite(measurement.value):
        return {"unavailable": f"the value is {measurement.value}; check the samples and learning curves in the report"}
    return {"role": metric.ROLE, **_entry(measurement)}


def _entry(measurement: Measurement) -> dict[str, Any]:
    entry = asdict(measurement)
    low, high = measurement.interval or (math.nan, math.nan)
    return {
        **entry,
        "interval": [low, high] if math.isfinite(low) and math.isfinite(high) else None,
        "parts": {name: value for name, value in measurement.parts.items() if math.isfinite(value)},
    }
