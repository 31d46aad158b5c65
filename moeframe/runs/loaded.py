"""Loading a trained run: its model with schedule and sampler, ready for a notebook."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from moeframe.assembly import Assembly, assemble
from moeframe.errors import CheckpointError, NonFiniteError, RunFolderError
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.sampler import Sampler, SamplerState, last_state
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.shapes import Levels
from moeframe.spec.loader import load_spec
from moeframe.spec.schema import RunSpec
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.storage.sample_store import Samples


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with the schedule and sampler of its run, ready for a notebook."""

    spec: RunSpec
    seed: int
    assembly: Assembly
    denoiser: MergedDenoiser
    """The merged model; a torch module."""

    @property
    def experts(self) -> list[Expert]:
        """The experts, each a torch module."""
        return [expert for expert in self.denoiser.experts if isinstance(expert, Expert)]

    @property
    def gate(self) -> Gate | None:
        """The gate, a torch module; None for a single expert."""
        return self.denoiser.gate

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return self.assembly.schedule

    @property
    def sampler(self) -> Sampler:
        """The sampler of the spec."""
        return self.assembly.sampler

    def trajectory(self, n: int, seed: int = 0) -> list[SamplerState]:
        """Return all states of n sampling trajectories, from noise to images."""
        return list(self._trajectory(0, n, seed))

    @torch.no_grad()
    def _trajectory(self, start: int, stop: int, seed: int) -> Iterator[SamplerState]:
        items = Trajectories.numbered(Streams(seed), start, stop)
        noise = items.normal(self.assembly.image.tensor_shape, "sampling/noise").to(self.assembly.device)
        yield from self.sampler.trajectory(self.denoiser, noise, items)

    def sample_batches(self, n: int, seed: int = 0) -> Iterator[Levels]:
        """Yield n images in batches of `evaluation.batch_size`: integers 0 .. levels-1, (batch, channels, h, w).

        Raises NonFiniteError if a pixel is NaN or infinite.
        """
        size = self.spec.evaluation.batch_size
        for start in range(0, n, size):
            last = last_state(self._trajectory(start, min(start + size, n), seed))
            samples = Samples.of_pixels(last.z, self.assembly.image.levels)
            if broken := int((~samples.finite).sum()):
                raise NonFiniteError(
                    f"{broken} of {len(last.z)} samples, from number {start} on, have pixels that are NaN or infinite; "
                    "see report.html; lower training.learning_rate and train again, or sample with more steps"
                )
            yield samples.levels

    def sample(self, n: int, seed: int = 0) -> Levels:
        """Return n images at once, (n, channels, height, width)."""
        return torch.cat(list(self.sample_batches(n, seed)))


def load(folder: str | Path, seed: int | None = None, *, device: str | None = None) -> LoadedRun:
    """Load the trained model of a run folder, of its first seed unless one is named.

    Raises RunFolderError or CheckpointError.
    """
    registry = Registry.installed()
    place = RunFolder(Path(folder))
    place.read_spec()
    spec = load_spec(place.spec, registry, () if device is None else (f"device={device}",))
    return load_seed(place, spec, registry, spec.seeds[0] if seed is None else seed)


def load_seed(place: RunFolder, spec: RunSpec, registry: Registry, seed: int) -> LoadedRun:
    """Load one seed of a run whose spec has been read. Raises RunFolderError or CheckpointError."""
    newest = checkpoint.latest(place.checkpoints(seed))
    if newest is None:
        if seed in spec.seeds:
            reason = "its weights were not kept, or are in the folder that it was trained in"
        else:
            reason = f"its seeds are {', '.join(map(str, spec.seeds))}"
        raise RunFolderError(f"{place.path}: has no checkpoint of seed {seed}; {reason}")
    assembly = assemble(spec, registry, seed)
    tensors = checkpoint.load(newest).tensors["ema" if spec.evaluation.weights == "ema" else "model"]
    with error_prefix(newest):
        checkpoint.load_weights(assembly.model, tensors)
    return LoadedRun(spec, seed, assembly, assembly.model.eval())


@contextmanager
def error_prefix(path: Path) -> Iterator[None]:
    """Prefix a CheckpointError with the path of its file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
