"""RunSpec: everything that determines a run, as one validated, frozen value bound to what is installed.

Component sections are validated by the Config of the component that their `type` names, so that a plugin's settings
are checked as strictly as our own and a broken plugin cannot spoil the spec of a run that does not name it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator
from pydantic.json_schema import models_json_schema

from moeframe.interfaces.component import Component, SpecFacts
from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.plugins import KINDS
from moeframe.registry import SINGULAR, Registry, did_you_mean

Path = tuple[str | int, ...]

SECTIONS = {
    "dataset": "datasets",
    "slicer": "slicers",
    "schedule": "schedules",
    "gate": "gates",
    "sampler": "samplers",
}
"""Sections that hold one component, and its kind."""
LIST_SECTIONS = {"experts": "experts", "objective": "losses", "metrics": "metrics"}
"""Sections that hold a list of components, and their kind."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingConfig(_Section):
    """How the experts and the gate are trained."""

    steps: int = Field(default=1000, ge=0, description="optimiser steps of both phases together")
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
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast of the forward pass")
    compile: bool = Field(default=False, description="torch.compile the experts")
    log_every: int = Field(default=25, ge=1, description="steps between lines of events.jsonl")
    held_out_every: int = Field(default=250, ge=1, description="steps between held-out bounds during training")
    held_out_images: int = Field(default=256, ge=1, description="test images behind each of them")
    checkpoint_every: int = Field(default=250, ge=1, description="steps between checkpoints")


class EvaluationConfig(_Section):
    """How a finished model is evaluated, apart from the metrics themselves."""

    batch_size: int = Field(default=256, ge=1, description="images per batch of sampling and bounds")
    weights: Literal["ema", "raw"] = Field(default="ema", description="averaged weights, or the last ones")
    samples_shown: int = Field(default=64, ge=1, description="images in the report's grid of samples")
    diagnostic_images: int = Field(default=512, ge=1, description="test images behind the report's plots")


class RunSpec(_Section):
    """One run. Component sections hold the Config of the component that they name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="also the name of the run folder")
    seeds: list[int] = Field(default=[0], min_length=1, description="one independent training per seed")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    dataset: SerializeAsAny[Dataset.Config]
    slicer: SerializeAsAny[Slicer.Config] | None = None
    schedule: SerializeAsAny[NoiseSchedule.Config]
    experts: list[SerializeAsAny[Expert.Config]] = Field(min_length=1)
    gate: SerializeAsAny[Gate.Config] | None = None
    objective: list[SerializeAsAny[Loss.Config]] = Field(min_length=1)
    sampler: SerializeAsAny[Sampler.Config]
    metrics: list[SerializeAsAny[Metric.Config]] = []
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def n_experts(self) -> int:
        """K, counting copies."""
        return sum(expert.copies for expert in self.experts)

    @property
    def expert_configs(self) -> list[Expert.Config]:
        """One config per expert."""
        return [expert for expert in self.experts for _ in range(expert.copies)]

    @property
    def warm_start_steps(self) -> int:
        """Length of phase 1."""
        return round(self.training.steps * self.training.warm_start)

    def dump(self) -> dict[str, Any]:
        """The resolved spec as plain values, every default written out."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped

    def hash(self) -> str:
        """Identifies the run: SHA-256 of the resolved spec without `device`, which changes no intent."""
        content = {key: value for key, value in self.dump().items() if key != "device"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds are repeated: {seeds}; name each seed once")
        return seeds


@dataclass(frozen=True)
class Flaw:
    """One thing wrong at a path of the spec; `about_key` when the key itself is wrong rather than its value."""

    path: Path
    message: str
    about_key: bool = False


class FlawsError(Exception):
    """Internal: the flaws of a spec, before they are given a place in a file."""

    def __init__(self, flaws: list[Flaw]):
        super().__init__(flaws)
        self.flaws = flaws


def bind(data: dict[str, Any], registry: Registry) -> RunSpec:
    """Validate plain data against the installed components. Raises FlawsError with every flaw at once."""
    binder = _Binder(registry)
    bound = binder.bind(data)
    try:
        spec = RunSpec.model_validate(bound)
    except ValidationError as error:
        flaws = [flaw for flaw in flaws_of(error, RunSpec) if not binder.covers(flaw.path)]
        raise FlawsError(binder.flaws + flaws) from None
    if binder.flaws:
        raise FlawsError(binder.flaws)
    conflicts = list(_conflicts(spec))
    if conflicts:
        raise FlawsError(conflicts)
    return spec


class _Binder:
    """Replaces each component section by its validated Config and collects what is wrong."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.flaws: list[Flaw] = []

    def covers(self, path: Path) -> bool:
        """Whether a flaw at or above this path is known already."""
        return any(path[: len(flaw.path)] == flaw.path or flaw.path[: len(path)] == path for flaw in self.flaws)

    def bind(self, data: dict[str, Any]) -> dict[str, Any]:
        bound = dict(data)
        for section, kind in SECTIONS.items():
            if bound.get(section) is not None:
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
                Flaw(path, f"a {SINGULAR[kind]} is a mapping with a 'type', not {value!r}; installed: {installed}")
            )
            return None
        if "type" not in value:
            self.flaws.append(Flaw(path, f"missing key 'type'; installed: {installed}"))
            return None
        name = value["type"]
        if name not in self.registry.names(kind):
            self.flaws.append(Flaw((*path, "type"), self.registry.why_not(kind, str(name))))
            return None
        config = self.registry.get(KINDS[kind], name).Config
        try:
            return config.model_validate(value)
        except ValidationError as error:
            self.flaws += [Flaw((*path, *flaw.path), flaw.message, flaw.about_key) for flaw in flaws_of(error, config)]
            return None


def flaws_of(error: ValidationError, model: type[BaseModel]) -> list[Flaw]:
    """pydantic's errors in our words."""
    flaws = []
    for item in error.errors(include_url=False):
        path: Path = tuple(item["loc"])
        kind = item["type"]
        if kind == "extra_forbidden":
            known = _known_keys(model, path[:-1])
            words = [
                f"unknown key '{path[-1]}'",
                *did_you_mean(str(path[-1]), known),
                f"known keys: {', '.join(known)}",
            ]
            flaws.append(Flaw(path, "; ".join(words), about_key=True))
        elif kind == "missing":
            flaws.append(Flaw(path[:-1], f"missing key '{path[-1]}'", about_key=True))
        elif kind == "value_error":
            flaws.append(Flaw(path, str(item["ctx"]["error"])))
        else:
            message = item["msg"].removeprefix("Input ").replace("should be", "must be")
            flaws.append(Flaw(path, f"{message}, not {item['input']!r}"))
    return flaws


def _known_keys(model: type[BaseModel], path: Path) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _conflicts(spec: RunSpec) -> Iterator[Flaw]:
    """What is wrong between sections that are each right on their own."""
    k = spec.n_experts
    if k > 1 and spec.gate is None:
        yield Flaw((), f"{k} experts need a gate: add a section 'gate', for example  gate: {{type: softmax}}")
    if k > 1 and spec.slicer is None and spec.warm_start_steps > 0:
        yield Flaw(
            (), f"the warm start of {k} experts needs a slicer: add a section 'slicer', or set training.warm_start: 0"
        )
    facts = SpecFacts(n_experts=k)
    for path, config in _component_configs(spec):
        for key, message in config.conflicts(facts):
            yield Flaw((*path, key), message)
    labels = [metric.key for metric in spec.metrics]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            yield Flaw(("metrics", i), f"a second metric is called '{label}'; give it a 'label' of its own")


def _component_configs(spec: RunSpec) -> Iterator[tuple[Path, Component.Config]]:
    for section in SECTIONS:
        config = getattr(spec, section)
        if config is not None:
            yield (section,), config
    for section in LIST_SECTIONS:
        for i, config in enumerate(getattr(spec, section)):
            yield (section, i), config


def json_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (draft 7 features only) of a spec file, with every installed component."""
    kinds = {**SECTIONS, **LIST_SECTIONS}
    configs = {kind: [item.component.Config for item in registry.components(kind)] for kind in kinds.values()}
    models: list[type[BaseModel]] = [RunSpec, *(config for group in configs.values() for config in group)]
    refs, top = models_json_schema([(model, "validation") for model in models], ref_template="#/definitions/{model}")
    definitions = top["$defs"]
    schema: dict[str, Any] = definitions.pop(refs[(RunSpec, "validation")]["$ref"].rsplit("/", 1)[1])
    for section, kind in kinds.items():
        choice = {"oneOf": [refs[(config, "validation")] for config in configs[kind]]}
        for config in configs[kind]:
            definition = definitions[refs[(config, "validation")]["$ref"].rsplit("/", 1)[1]]
            definition["required"] = sorted({"type", *definition.get("required", [])})
        described = {
            key: value for key, value in schema["properties"][section].items() if key in ("title", "description")
        }
        body = choice if section in SECTIONS else {"type": "array", "items": choice}
        schema["properties"][section] = {**described, **body}
    schema["properties"]["base"] = {
        "type": "string",
        "description": "a spec file, relative to this one, that this one overrides",
    }
    # A file with `base` may leave out anything that the base file has.
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required", [])}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}
