"""RunSpec: everything that determines a run, as one validated, frozen value."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.interfaces.trunk import Trunk
from moeframe.plugin.kinds import ALL_KINDS

_WITH_SECTION = {kind.section: kind for kind in ALL_KINDS if kind.section is not None}

SECTIONS = {section: kind.plural for section, kind in _WITH_SECTION.items() if not kind.is_list}
"""Sections that hold one component, and its kind."""
OPTIONAL_SECTIONS = tuple(section for section in SECTIONS if _WITH_SECTION[section].optional)
"""Sections of one component that a spec may leave out."""
LIST_SECTIONS = {section: kind.plural for section, kind in _WITH_SECTION.items() if kind.is_list}
"""Sections that hold a list of components, and their kind."""

MACHINE_SETTINGS = (("", "device"), ("training", "workers"), ("evaluation", "offload"))
"""Section and key of settings that may differ when a run is resumed."""


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
    validation_every: int = Field(default=250, ge=1, description="steps between validations during training")
    validation_images: int = Field(default=256, ge=2, description="test images per validation")
    checkpoint_every: int = Field(default=250, ge=1, description="steps between checkpoints")
    calibration_images: int = Field(
        default=1024,
        ge=2,
        description="training images on which finished experts are compared, for a gate that needs calibration",
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_trainable(cls, data: Any) -> Any:
        """Default to no warm start for frozen experts, and to no steps where nothing is trained."""
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
        description="hold experts in main memory, on the device only while evaluated; slower, for large ones",
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
        """The same spec, with the places of its sections."""
        spec = self.model_copy()
        spec._places = dict(places)
        return spec

    def place_of(self, section: str) -> str:
        """`file:line, section`, for problems found only when the section meets the data; or the section alone."""
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
        """Steps of the warm start."""
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
