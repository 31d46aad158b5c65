"""RunSpec: everything that determines a run, as one validated, frozen value bound to what is installed.

Component sections are validated by the Config of the component that their `type` names, so that a plugin's settings
are checked as strictly as our own and a broken plugin cannot spoil the spec of a run that does not name it. The parts
of a component that is made of others are read in the same way, at any depth.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from moeframe.interfaces.component import Component, SpecFacts
from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.interfaces.trunk import Trunk
from moeframe.plugins import KINDS
from moeframe.registry import Registry
from moeframe.spec_flaws import Flaw, FlawsError, Path, flaws_of, shown

SECTIONS = {
    "dataset": "datasets",
    "slicer": "slicers",
    "schedule": "schedules",
    "trunk": "trunks",
    "gate": "gates",
    "sampler": "samplers",
}
"""Sections that hold one component, and its kind."""
OPTIONAL_SECTIONS = ("slicer", "trunk", "gate")
"""Sections that a single expert does without."""
LIST_SECTIONS = {"experts": "experts", "objective": "losses", "metrics": "metrics"}
"""Sections that hold a list of components, and their kind."""


MACHINE_SETTINGS = (("", "device"), ("training", "workers"), ("evaluation", "offload"))
"""Section and key of what may differ between two sittings of one run."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingConfig(_Section):
    """How the experts and the gate are trained."""

    trainable: Literal["all", "gate", "none"] = Field(
        default="all", description="gate: the experts stay as they are; none: nothing is trained, steps are 0"
    )
    steps: int = Field(default=1000, ge=0, le=10**9, description="optimiser steps of both phases together")
    batch_size: int = Field(
        default=64, ge=1, description="images per step; in the warm start, images per expert and step"
    )
    warm_start: float = Field(
        default=0.15, ge=0, le=1, description="share of the steps in which each expert sees its slice only"
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_warmup: int = Field(
        default=100, ge=0, description="steps over which the learning rate rises linearly"
    )
    learning_rate_decay: Literal["none", "cosine"] = Field(
        default="none", description="after the warm-up, to zero at the last step"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay")
    gradient_clip: float = Field(default=5.0, gt=0, description="largest global norm of the gradient")
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged weights that are evaluated")
    horizontal_flip: bool = Field(default=False, description="mirror each training image with probability one half")
    workers: int = Field(default=0, ge=0, le=64, description="processes that decode training images ahead")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast of the forward pass")
    compile: bool = Field(default=False, description="torch.compile the experts")
    log_every: int = Field(default=25, ge=1, description="steps between lines of events.jsonl")
    held_out_every: int = Field(default=250, ge=1, description="steps between held-out bounds during training")
    held_out_images: int = Field(default=256, ge=2, description="test images behind each of them")
    checkpoint_every: int = Field(default=250, ge=1, description="steps between checkpoints")
    calibration_images: int = Field(
        default=1024, ge=2, description="training images on which finished experts are compared, for a gate that asks"
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_trainable(cls, data: Any) -> Any:
        """Frozen experts have no warm start, and what trains nothing takes no steps, where nothing else is said."""
        if not isinstance(data, dict):
            return data
        implied = {"gate": {"warm_start": 0}, "none": {"warm_start": 0, "steps": 0}}
        return {**implied.get(str(data.get("trainable")), {}), **data}


class EvaluationConfig(_Section):
    """How a finished model is evaluated, apart from the metrics themselves."""

    batch_size: int = Field(default=256, ge=1, description="images per batch of sampling and bounds")
    weights: Literal["ema", "raw"] = Field(default="ema", description="averaged weights, or the last ones")
    offload: bool = Field(
        default=False,
        description="keep experts in main memory and on the device only while they are asked; slower, for large ones",
    )
    samples_shown: int = Field(default=64, ge=1, description="images in the report's grid of samples")
    diagnostic_images: int = Field(default=512, ge=1, description="test images behind the report's plots")


class RunSpec(_Section):
    """One run. Component sections hold the Config of the component that they name."""

    name: str = Field(
        max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="also the name of the run folder"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        default=[0], min_length=1, description="one independent training per seed"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    dataset: SerializeAsAny[Dataset.Config]
    slicer: SerializeAsAny[Slicer.Config] | None = None
    schedule: SerializeAsAny[NoiseSchedule.Config]
    trunk: SerializeAsAny[Trunk.Config] | None = None
    experts: list[SerializeAsAny[Expert.Config]] = Field(min_length=1)
    gate: SerializeAsAny[Gate.Config] | None = None
    objective: list[SerializeAsAny[Loss.Config]] = Field(min_length=1)
    sampler: SerializeAsAny[Sampler.Config]
    metrics: list[SerializeAsAny[Metric.Config]] = []
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Equal settings, wherever they are written."""
        return isinstance(other, RunSpec) and self.dump() == other.dump()

    __hash__ = None  # type: ignore[assignment]  # as of every class with __eq__ alone; `hash` names a spec

    def located(self, places: Mapping[str, str]) -> "RunSpec":
        """The same, knowing where its sections are written."""
        spec = self.model_copy()
        spec._places = dict(places)
        return spec

    def place_of(self, section: str) -> str:
        """`file:line, section`, for what is found wrong only when the section meets the data; or the section alone."""
        return ", ".join(filter(None, (self._places.get(section, ""), section)))

    @property
    def n_experts(self) -> int:
        """K, counting copies."""
        return sum(expert.copies for expert in self.experts)

    @property
    def expert_configs(self) -> list[Expert.Config]:
        """One config per expert."""
        return [expert.for_copy(number) for expert in self.experts for number in range(expert.copies)]

    @property
    def warm_start_steps(self) -> int:
        """Length of phase 1."""
        return round(self.training.steps * self.training.warm_start)

    def dump(self) -> dict[str, Any]:
        """The resolved spec as plain values, every default written out."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped

    def hash(self) -> str:
        """Identifies the run: SHA-256 of the resolved spec without the settings of the machine."""
        content = self.dump()
        for section, key in MACHINE_SETTINGS:
            (content[section] if section else content).pop(key)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds are repeated: {seeds}; name each seed once")
        return seeds


def bind(data: dict[str, Any], registry: Registry) -> RunSpec:
    """Validate plain data against the installed components. Raises FlawsError with every flaw at once."""
    binder = _Binder(registry)
    bound = binder.bind(data)
    flaws = list(binder.flaws)
    spec = None
    try:
        spec = RunSpec.model_validate(bound)
    except ValidationError as error:
        flaws += [flaw for flaw in flaws_of(error, RunSpec) if not binder.covers(flaw.path)]
    flaws += [flaw for flaw in _conflicts(bound, spec, registry) if not binder.covers(flaw.path)]
    if spec is None or flaws:
        raise FlawsError(flaws)
    return spec


class _Binder:
    """Replaces each component section by its validated Config and collects what is wrong."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.flaws: list[Flaw] = []

    def covers(self, path: Path) -> bool:
        """Whether a flaw at or above this path is known already."""
        return bool(path) and any(path[: len(f.path)] == f.path or f.path[: len(path)] == path for f in self.flaws)

    def bind(self, data: dict[str, Any]) -> dict[str, Any]:
        bound = dict(data)
        for section, kind in SECTIONS.items():
            if section in bound and not (section in OPTIONAL_SECTIONS and bound[section] is None):
                bound[section] = self._component((section,), kind, bound[section])
        for section, kind in LIST_SECTIONS.items():
            items = bound.get(section)
            if isinstance(items, list):
                bound[section] = [self._component((section, i), kind, item) for i, item in enumerate(items)]
        return bound

    def _component(self, path: Path, kind: str, value: Any) -> Any:
        installed = ", ".join(self.registry.names(kind)) or "none"
        if not isinstance(value, dict):
            self.flaws.append(
                Flaw(path, f"must be a mapping with a 'type', not {shown(value)}; installed {kind}: {installed}")
            )
            return None
        if "type" not in value:
            self.flaws.append(Flaw(path, f"missing key 'type'; installed {kind}: {installed}"))
            return None
        name = value["type"]
        if not isinstance(name, str):
            words = f"must be the name of a component, not {shown(name)}; installed {kind}: {installed}"
            self.flaws.append(Flaw((*path, "type"), words))
            return None
        if name not in self.registry.names(kind):
            self.flaws.append(Flaw((*path, "type"), self.registry.why_not(kind, name)))
            return None
        component = self.registry.get(KINDS[kind], name)
        config, settings = component.Config, self._with_parts(path, component, value)
        try:
            return config.model_validate(settings)
        except ValidationError as error:
            flaws = [Flaw((*path, *flaw.path), flaw.message, flaw.about_key) for flaw in flaws_of(error, config)]
            self.flaws += [flaw for flaw in flaws if not self.covers(flaw.path)]
            return None

    def _with_parts(self, path: Path, component: type[Component], settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with the components in them replaced by their Configs."""
        bound = dict(settings)
        for field, kind in component.PARTS.items():
            items = settings.get(field)
            if isinstance(items, list):
                bound[field] = [self._part((*path, field, i), kind, item) for i, item in enumerate(items)]
            elif isinstance(items, dict) and component.holds_one(field):
                bound[field] = self._part((*path, field), kind, items)
        return bound

    def _part(self, path: Path, kind: str, value: Any) -> Any:
        config = self._component(path, kind, value)
        if config is None:
            return None
        component = self.registry.get(KINDS[kind], config.type)
        if config.component is not component:  # what is made of parts builds them from their Configs alone
            words = f"'{config.type}' cannot be a part, because its Config is that of {config.component.__name__}"
            self.flaws.append(Flaw((*path, "type"), f"{words}; give {component.__name__} a nested Config of its own"))
            return None
        return config


def _conflicts(bound: dict[str, Any], spec: RunSpec | None, registry: Registry) -> Iterator[Flaw]:
    """What is wrong between sections that are each right on their own, as far as the flaws found before let us see."""
    configs = dict(_component_configs(bound))
    experts = [config.copies for config in configs.values() if isinstance(config, Expert.Config)]
    if experts and len(experts) == len(bound["experts"]):
        k = sum(experts)
        if k > 1 and bound.get("gate") is None:
            yield Flaw(
                ("gate",), f"{k} experts need a gate: add a section 'gate', for example  gate: {{type: softmax}}"
            )
        if k > 1 and bound.get("slicer") is None and spec is not None and spec.warm_start_steps > 0:
            yield Flaw(
                ("slicer",),
                f"the warm start of {k} experts needs a slicer: add a section 'slicer', or set training.warm_start: 0",
            )
        facts = SpecFacts(
            n_experts=k,
            log_snr_range=_log_snr_range(bound.get("schedule"), registry),
            training_steps=0 if spec is None else spec.training.steps,
            has_trunk=isinstance(bound.get("trunk"), Trunk.Config),
        )
        for path, config in configs.items():
            for key, message in config.conflicts(facts):
                yield Flaw((*path, key), message)
    yield from _repetitions(configs)
    if spec is not None:
        yield from _untrainable(spec, registry)
    if spec is not None and _experts_learn_nothing(spec, registry):
        yield Flaw(("objective",), "the experts learn from no term, all are about the gate; add one: {type: nll}")


def _log_snr_range(config: Any, registry: Registry) -> tuple[float, float]:
    if not isinstance(config, NoiseSchedule.Config):
        return (-math.inf, math.inf)
    schedule = registry.get(NoiseSchedule, config.type)(config)
    return (schedule.log_snr_min, schedule.log_snr_max)


def _untrainable(spec: RunSpec, registry: Registry) -> Iterator[Flaw]:
    """What `trainable` leaves nothing to train, or freezes although another setting trains it."""
    training = spec.training
    if spec.evaluation.offload and training.trainable == "all" and training.steps > 0:
        message = "experts that are trained stay on the device; set false, or training.trainable: gate or none"
        yield Flaw(("evaluation", "offload"), message)
    if training.trainable == "none" and training.steps > 0:
        message = f"nothing is trainable, so {training.steps} steps do nothing; set steps: 0, or trainable: gate or all"
        yield Flaw(("training", "steps"), message)
    if training.trainable != "gate":
        return
    if training.warm_start > 0:
        message = "the warm start trains the experts, which trainable: gate freezes; set warm_start: 0"
        yield Flaw(("training", "warm_start"), message)
    if spec.gate is None:
        yield Flaw(("training", "trainable"), "there is no gate to train; add a section 'gate', or set all or none")
    elif not registry.get(Gate, spec.gate.type).LEARNS:
        message = f"gate '{spec.gate.type}' has no parameters to train; use a gate that learns, or trainable: none"
        yield Flaw(("training", "trainable"), message)


def _repetitions(configs: dict[Path, Component.Config]) -> Iterator[Flaw]:
    seen: set[tuple[str, str]] = set()
    for path, config in configs.items():
        if isinstance(config, Metric.Config):
            item, message = ("metric", config.key), f"a second metric is called '{config.key}'; give it its own 'label'"
        elif isinstance(config, Loss.Config):
            item, message = ("loss", config.type), f"a second loss '{config.type}'; name each loss once"
        else:
            continue
        if item in seen:
            yield Flaw(path, message)
        seen.add(item)


def _experts_learn_nothing(spec: RunSpec, registry: Registry) -> bool:
    gate_is_trained_alone = spec.gate is not None and spec.warm_start_steps == 0
    return not gate_is_trained_alone and all(registry.get(Loss, term.type).NEEDS_GATE for term in spec.objective)


def _component_configs(bound: dict[str, Any]) -> Iterator[tuple[Path, Component.Config]]:
    for section in SECTIONS:
        if isinstance(bound.get(section), Component.Config):
            yield (section,), bound[section]
    for section in LIST_SECTIONS:
        items = bound.get(section)
        for i, config in enumerate(items if isinstance(items, list) else []):
            if isinstance(config, Component.Config):
                yield (section, i), config
