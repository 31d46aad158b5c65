"""Merging in weight space: one network whose weights come from several of one architecture, at the cost of one.

The alternative to a gate, which merges predictions. All of these experts presume a common ancestor: independently
trained networks order their units differently, and the mean of two such networks computes neither.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from moeframe.errors import InputError
from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.trunk import AdapterExpert
from moeframe.shapes import Images, LogSnr


class WeightSpaceExpert(Expert):
    """One network whose weights are merged from those of its parts; a final class says how."""

    PARTS: ClassVar[Mapping[str, str]] = {"experts": "experts"}

    class Config(Expert.Config):
        experts: tuple[SerializeAsAny[Expert.Config], ...] = Field(
            min_length=1, description="of one architecture, such as experts of runs; copies count"
        )

        @field_validator("experts")
        @classmethod
        def _several(cls, experts: tuple[Expert.Config, ...]) -> tuple[Expert.Config, ...]:
            n = sum(expert.copies for expert in experts)
            if n < 2:
                raise ValueError("a single expert cannot be merged; name two or more, copies counted")
            return experts

        @property
        def each(self) -> list[Expert.Config]:
            """One config per expert."""
            return [part.for_copy(number) for part in self.experts for number in range(part.copies)]

        def for_seed(self, seed: int) -> "Expert.Config":
            """The parts for the seed."""
            return self.model_copy(update={"experts": tuple(part.for_seed(seed) for part in self.experts)})

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """What the parts find."""
            for i, part in enumerate(self.experts):
                for key, message in part.conflicts(facts):
                    yield "experts", f"expert {i} ('{part.type}'), {key}: {message}"

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        parts = [_built(part, image) for part in config.each]
        cores = [part.core() for part in parts]  # however many runs and folders they came through
        _require_one_architecture(cores)
        self._origins = [part.provenance() for part in parts]
        states = [core.state_dict() for core in cores]
        self.inner = cores[0]
        self.inner.load_state_dict(
            {name: self._merged([state[name] for state in states]) for name in states[0]}, strict=True
        )

    def _merged(self, tensors: Sequence[Tensor]) -> Tensor:
        """Merge weights in float64; counts and other integers are equal in all parts."""
        if not tensors[0].is_floating_point():
            return tensors[0]
        return self.merge([tensor.double() for tensor in tensors]).to(tensors[0].dtype)

    @abstractmethod
    def merge(self, tensors: Sequence[Tensor]) -> Tensor:
        """Merge one tensor from the corresponding tensors of the parts, float64."""

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """That of the parts, which share it."""
        return self.inner.log_snr_range

    def core(self) -> Expert:
        """The network with the merged weights."""
        return self.inner.core()

    def architecture(self) -> Mapping[str, Any]:
        """That of the parts."""
        return self.inner.architecture()

    def provenance(self) -> Mapping[str, str]:
        """How the weights were merged, and where those of each part come from."""
        entries = {"source": f"merged in weight space ({self.name()})"}
        licences = dict.fromkeys(origin["licence"] for origin in self._origins if "licence" in origin)
        if licences:
            entries["licence"] = "; ".join(licences)
        parts = {f"part {k} {key}": value for k, origin in enumerate(self._origins) for key, value in origin.items()}
        return {**entries, **parts}

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity of the one network."""
        velocity: Images = self.inner(z, log_snr)
        return velocity


def _built(config: Expert.Config, image: ImageShape) -> Expert:
    component = config.component
    assert issubclass(component, Expert)
    assert component is not Expert, "a part is the Config of its own expert; the engine reads it so from a spec"
    if issubclass(component, AdapterExpert):
        raise InputError(
            f"experts: '{config.type}' changes a trunk and has no weights of a network of its own to merge; "
            "merge the predictions of adapters with a gate"
        )
    return component(config, image=image)


def _require_one_architecture(parts: Sequence[Expert]) -> None:
    """Raise InputError naming the first part whose network, conversion or range differs from the first part's."""
    first = parts[0]
    shapes = {name: tuple(tensor.shape) for name, tensor in first.state_dict().items()}
    for k, part in enumerate(parts[1:], 1):
        place = f"experts.{k}: "
        fix = "weights can be merged between experts of one architecture only; merge their predictions with a gate"
        own = {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}
        differing = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
        if differing:
            name = differing[0]
            raise InputError(
                f"{place}its tensor {name} has the shape {own.get(name, 'none')}, that of expert 0 has "
                f"{shapes.get(name, 'none')} ({len(differing)} tensors differ); {fix}"
            )
        if _text(part) != _text(first):
            raise InputError(f"{place}is {_text(part)}, expert 0 is {_text(first)}; {fix}")
        if part.log_snr_range != first.log_snr_range:
            raise InputError(
                f"{place}is valid for log-SNR {part.log_snr_range}, expert 0 for {first.log_snr_range}: they were "
                f"trained on other noise levels; {fix}"
            )


def _text(expert: Expert) -> str:
    return json.dumps(expert.architecture(), sort_keys=True)
