"""RunSpec + seed -> the built parts of one run: data, slices, model, losses, sampler, metrics."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Integer
from torch import Tensor

from moeframe.errors import DataError, DeviceError, PluginError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, Examples
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.spec.schema import RunSpec
from moeframe.storage.atomic import key_of, locked, write_file


@dataclass(frozen=True)
class Slices:
    """The slice of every example of both splits."""

    slicer: Slicer | None
    train: Integer[Tensor, " train"]
    test: Integer[Tensor, " test"]
    n_slices: int

    @property
    def names(self) -> list[str]:
        """What each slice holds."""
        return self.slicer.slice_names if self.slicer is not None else ["all images"]

    @property
    def train_sizes(self) -> list[int]:
        """Training examples per slice."""
        return torch.bincount(self.train, minlength=self.n_slices).tolist()

    @property
    def test_sizes(self) -> list[int]:
        """Test examples per slice."""
        return torch.bincount(self.test, minlength=self.n_slices).tolist()

    @property
    def tiny(self) -> list[int]:
        """Slices with under a tenth of an even share of the training split."""
        return [k for k, size in enumerate(self.train_sizes) if 10 * self.n_slices * size < len(self.train)]

    @property
    def cautions(self) -> list[str]:
        """For each slice what a reader should know before training, empty where it holds enough images."""
        found = []
        for k, (train, test) in enumerate(zip(self.train_sizes, self.test_sizes, strict=True)):
            few = f"{train} training images, under a tenth of an even share" if k in self.tiny else ""
            none = "no test images, so nothing is measured on it" if test == 0 else ""
            found.append("; ".join(filter(None, (few, none))))
        return found

    def warnings(self) -> list[str]:
        """The same as whole lines, for those slices that need one."""
        return [f"slice {k} ({self.names[k]}) has {caution}" for k, caution in enumerate(self.cautions) if caution]

    @property
    def shares(self) -> tuple[float, ...]:
        """Each slice's share of the training split."""
        return tuple(size / len(self.train) for size in self.train_sizes)

    @cached_property
    def members(self) -> list[Tensor]:
        """Indices of the training examples of each slice."""
        return [torch.nonzero(self.train == k).squeeze(1) for k in range(self.n_slices)]


@dataclass(frozen=True)
class Assembly:
    """Everything that one seed of a run is made of."""

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
        """Numbers of n test images: all in their order, or fewer drawn at random, the same for every seed.

        The first of a folder are of few classes; those of n are among those of more than n, unless that is all.
        """
        available = len(self.test)
        if n is None or n >= available:
            return torch.arange(available)
        return Streams(0).permutation(available, "test images")[:n]


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises DeviceError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device '{name}' is no device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device '{name}' is not there: torch sees {torch.cuda.device_count()} CUDA devices; use device: auto"
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N")
    return device


def assemble(
    spec: RunSpec, registry: Registry, seed: int, dataset: Dataset | None = None, shared: Path | None = None
) -> Assembly:
    """Build every part, around `dataset` where it is open already. Raises DataError, DeviceError or PluginError.

    `shared` is where runs of a study leave their slices for one another.
    """
    device = resolve_device(spec.device)
    streams = Streams(seed)
    dataset = dataset or build_dataset(spec, registry)
    train, test = dataset.split("train"), dataset.split("test")
    if len(train) < 1 or len(test) < 2:
        raise DataError(
            f"dataset '{spec.dataset.type}' has {len(train)} training and {len(test)} test images; "
            "a run needs at least 1 and 2, because an interval needs two"
        )
    slices = cut_slices(spec, registry, streams, train, test, shared)
    schedule = registry.get(NoiseSchedule, spec.schedule.type)(spec.schedule)
    model = build_model(spec, registry, dataset.image, streams)
    return Assembly(
        spec=spec,
        streams=streams,
        device=device,
        dataset=dataset,
        image=dataset.image,
        train=train,
        test=test,
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


def build_dataset(spec: RunSpec, registry: Registry) -> Dataset:
    """The dataset. Raises DataError when its files are not there."""
    dataset = registry.get(Dataset, spec.dataset.type)(spec.dataset)
    missing = dataset.missing()
    if missing:
        raise DataError(missing)
    return dataset


def build_metrics(spec: RunSpec, registry: Registry) -> tuple[Metric, ...]:
    """The metrics in the order of the spec."""
    return tuple(registry.get(Metric, config.type)(config) for config in spec.metrics)


def cut_slices(
    spec: RunSpec,
    registry: Registry,
    streams: Streams,
    train: Examples,
    test: Examples,
    shared: Path | None = None,
) -> Slices:
    """Fit the slicer on the training split and assign both, unless another run left the same slices below `shared`.

    Raises DataError naming an empty slice. What the slicer finds wrong comes with the place of the spec that asks for
    it.
    """
    if spec.slicer is None:
        train_ids, test_ids = (torch.zeros(len(split), dtype=torch.long) for split in (train, test))
        return Slices(None, train_ids, test_ids, n_slices=1)
    slicer = registry.get(Slicer, spec.slicer.type)(spec.slicer, n_slices=spec.n_experts, streams=streams)
    if shared is None:
        return _cut(slicer, spec, train, test)
    dump = spec.dump()
    place = shared / f"slices-{key_of(dump['dataset'], dump['slicer'], spec.n_experts, streams.seed)}"
    with locked(place):
        kept = place / "slices.json"
        if kept.exists():
            found = json.loads(kept.read_bytes())
            slicer.restore(found["state"])
            return Slices(slicer, torch.tensor(found["train"]), torch.tensor(found["test"]), slicer.n_slices)
        slices = _cut(slicer, spec, train, test)
        found = {"state": slicer.state(), "train": slices.train.tolist(), "test": slices.test.tolist()}
        write_file(kept, json.dumps(found).encode())
        return slices


def _cut(slicer: Slicer, spec: RunSpec, train: Examples, test: Examples) -> Slices:
    k = slicer.n_slices
    try:
        slicer.fit(train)
        slices = Slices(slicer, slicer.assign(train).long(), slicer.assign(test).long(), k)
    except DataError as problem:
        raise DataError(f"{spec.place_of('slicer')}: {problem}") from problem
    assert spec.slicer is not None
    for ids in (slices.train, slices.test):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < k:
            found = f"{int(ids.min())} .. {int(ids.max())}"
            raise DataError(
                f"{spec.place_of('slicer')}: '{spec.slicer.type}' made slices {found} for {k} experts, "
                f"which have 0 .. {k - 1}; change the number of experts to match"
            )
    empty = [str(i) for i, size in enumerate(slices.train_sizes) if size == 0]
    if empty:
        raise DataError(
            f"{spec.place_of('slicer')}: '{spec.slicer.type}' leaves slice {', '.join(empty)} of {k} without "
            f"training images (sizes {slices.train_sizes}); use fewer experts or another slicer"
        )
    return slices


def build_model(spec: RunSpec, registry: Registry, image: ImageShape, streams: Streams) -> MergedDenoiser:
    """Trunk, experts and gate of a spec with freshly drawn weights, each from its own stream."""
    return build_mixture(spec.trunk, spec.expert_configs, spec.gate, registry, image, streams)


def build_mixture(
    trunk_config: Trunk.Config | None,
    expert_configs: Sequence[Expert.Config],
    gate_config: Gate.Config | None,
    registry: Registry,
    image: ImageShape,
    streams: Streams,
) -> MergedDenoiser:
    """The same from the settings of each part."""
    trunk = None
    if trunk_config is not None:
        with streams.governing_torch("weights/trunk"):
            trunk = registry.get(Trunk, trunk_config.type)(trunk_config.for_seed(streams.seed), image=image)
    experts: list[Expert] = []
    for k, config in enumerate(expert_configs):
        with streams.governing_torch("weights/expert", k):
            component, own = registry.get(Expert, config.type), config.for_seed(streams.seed)
            if issubclass(component, AdapterExpert):
                assert trunk is not None, "SpecFacts.has_trunk tells its config"
                experts.append(component(own, image=image, trunk=trunk))
            else:
                experts.append(component(own, image=image))
    gate = None
    if gate_config is not None:
        with streams.governing_torch("weights/gate"):
            gate = registry.get(Gate, gate_config.type)(gate_config, image=image, n_experts=len(experts))
            if trunk is not None:
                gate.attach(trunk)
        _probe_gate(gate, trunk, image, streams)
    return MergedDenoiser(experts, gate, trunk)


@torch.no_grad()
def _probe_gate(gate: Gate, trunk: Trunk | None, image: ImageShape, streams: Streams) -> None:
    """A gate that breaks its contract is found before any training."""
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
        raise PluginError(f"gate '{gate.name()}' returned weights whose sum misses 1 by {worst:g}; normalise them")
