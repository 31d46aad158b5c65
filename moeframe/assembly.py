"""Assembly: a spec and a seed become the parts of one run: data, slices, model, losses, sampler, metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Integer
from torch import Tensor

from moeframe.data.slices import Slices, cut_slices
from moeframe.data.splits import Splits, open_splits
from moeframe.errors import DeviceError, InputError, PluginError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, Examples
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.spec.schema import RunSpec


@dataclass(frozen=True)
class Assembly:
    """The parts of one seed of a run."""

    spec: RunSpec
    streams: Streams
    device: torch.device
    dataset: Dataset
    image: ImageShape
    train: Examples
    test: Examples
    slices: Slices
    schedule: NoiseSchedule
    model: MergedDenoiser
    losses: tuple[Loss, ...]
    sampler: Sampler
    metrics: tuple[Metric, ...]

    def test_numbers(self, n: int | None = None) -> Integer[Tensor, " n"]:
        """Return the numbers of n test images: all in order, or a random subset that is the same for every seed.

        Random, because the first images of a folder show few classes. Smaller subsets are nested in larger ones.
        """
        available = len(self.test)
        if n is None or n >= available:
            return torch.arange(available)
        return Streams(0).permutation(available, "test images")[:n]


def resolve_device(name: str) -> torch.device:
    """Return the torch device; `auto` is the GPU if there is one. Raises DeviceError for an unavailable device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(f"device '{name}' is not available (torch.cuda.device_count() == {count}); use device: auto")
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N")
    return device


def assemble(
    spec: RunSpec, registry: Registry, seed: int, splits: Splits | None = None, slices: Slices | None = None
) -> Assembly:
    """Build every part of one seed, from open splits and finished slices where they are given.

    Raises DataError, DeviceError or PluginError.
    """
    device = resolve_device(spec.device)
    streams = Streams(seed)
    splits = splits or open_splits(spec, registry)
    dataset = splits.dataset
    slices = slices or cut_slices(spec, registry, seed, splits)
    schedule = registry.get(NoiseSchedule, spec.schedule.type)(spec.schedule)
    model = build_model(spec, registry, dataset.image, streams)
    return Assembly(
        spec=spec,
        streams=streams,
        device=device,
        dataset=dataset,
        image=dataset.image,
        train=splits.train,
        test=splits.test,
        slices=slices,
        schedule=schedule,
        model=model.place(device, offload=spec.evaluation.offload),
        losses=tuple(
            registry.get(Loss, config.type)(config, schedule=schedule, slice_shares=slices.shares)
            for config in spec.objective
        ),
        sampler=registry.get(Sampler, spec.sampler.type)(spec.sampler, schedule=schedule),
        metrics=build_metrics(spec, registry),
    )


def build_metrics(spec: RunSpec, registry: Registry) -> tuple[Metric, ...]:
    """Build the metrics in the order of the spec."""
    return tuple(registry.get(Metric, config.type)(config) for config in spec.metrics)


def build_model(spec: RunSpec, registry: Registry, image: ImageShape, streams: Streams) -> MergedDenoiser:
    """Build trunk, experts and gate of a spec; the initial weights of each come from its own stream."""
    return build_mixture(spec.trunk, spec.expert_configs, spec.gate, registry, image, streams)


def build_mixture(
    trunk_config: Trunk.Config | None,
    expert_configs: Sequence[Expert.Config],
    gate_config: Gate.Config | None,
    registry: Registry,
    image: ImageShape,
    streams: Streams,
) -> MergedDenoiser:
    """Build a mixture from the settings of its parts."""
    trunk = None
    if trunk_config is not None:
        with streams.governing_torch("weights/trunk"), _within_memory("trunk"):
            trunk = registry.get(Trunk, trunk_config.type)(trunk_config.for_seed(streams.seed), image=image)
    experts: list[Expert] = []
    for k, config in enumerate(expert_configs):
        with streams.governing_torch("weights/expert", k), _within_memory(f"expert {k}"):
            component, own = registry.get(Expert, config.type), config.for_seed(streams.seed)
            if issubclass(component, AdapterExpert):
                assert trunk is not None, "SpecFacts.has_trunk tells its config"
                experts.append(component(own, image=image, trunk=trunk))
            else:
                experts.append(component(own, image=image))
    gate = None
    if gate_config is not None:
        with streams.governing_torch("weights/gate"), _within_memory("gate"):
            gate = registry.get(Gate, gate_config.type)(gate_config, image=image, n_experts=len(experts))
            if trunk is not None:
                gate.attach(trunk)
        _probe_gate(gate, trunk, image, streams)
    return MergedDenoiser(experts, gate, trunk)


@contextmanager
def _within_memory(part: str) -> Iterator[None]:
    """Raise InputError naming the part whose weights do not fit into memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch raises RuntimeError on the CPU
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise InputError(f"{part}: its weights do not fit into memory; choose a smaller network") from None
        raise


@torch.no_grad()
def _probe_gate(gate: Gate, trunk: Trunk | None, image: ImageShape, streams: Streams) -> None:
    """Raise PluginError before any training if a gate breaks its contract."""
    z, log_snr = streams.normal((4, *image.tensor_shape), "probe"), torch.tensor([-6.0, -1.0, 1.0, 6.0])
    features = None if trunk is None else trunk(z, log_snr)
    weights = gate.route_from(features, z, log_snr, Trajectories.numbered(streams, 0, 4)).weights
    if weights.shape != (4, gate.n_experts):
        raise PluginError(
            f"gate '{gate.name()}' returned weights of shape {tuple(weights.shape)}, not (batch, {gate.n_experts})"
        )
    if not bool(torch.isfinite(weights).all()) or float(weights.min()) < 0:
        raise PluginError(
            f"gate '{gate.name()}' returned weight {float(weights.min()):g}; weights must be finite and not negative"
        )
    worst = float((weights.sum(1) - 1).abs().max())
    if gate.sums_to_one and worst > 1e-4:
        raise PluginError(
            f"gate '{gate.name()}' returned weights that do not sum to 1 (off by {worst:g}); normalise them"
        )
