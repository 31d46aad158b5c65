"""What every component of every kind shares: a frozen config that selects it by name, and a one-line summary."""

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_origin

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class ImageShape:
    """Size of one image and its number of integer levels per channel (256 for 8-bit data)."""

    channels: int
    height: int
    width: int
    levels: int

    @property
    def n_dims(self) -> int:
        """D = channels x height x width, the D of bits/dim."""
        return self.channels * self.height * self.width

    @property
    def tensor_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class SpecFacts:
    """What a config may know of the rest of the spec when it checks itself."""

    n_experts: int
    log_snr_range: tuple[float, float] = (-math.inf, math.inf)
    """The schedule's (noisiest, cleanest) log-SNR."""
    training_steps: int = 0
    has_trunk: bool = False


class Component(ABC):
    """Base of all kinds. A concrete component is a final class with a nested `Config` whose `type` is its name."""

    KIND: ClassVar[str] = ""
    PARTS: ClassVar[Mapping[str, str]] = {}
    """Fields of the config that hold a component or a list of them, and the kind, such as {"slicers": "slicers"}."""

    class Config(BaseModel):
        """Settings of a component; unknown keys are errors."""

        model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
        component: ClassVar["type[Component]"]
        """The class that these settings are of: the first that has this Config as its own."""
        type: str

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:  # noqa: ARG002
            """Yield (key, message) for each setting that does not fit the rest of the spec."""
            yield from ()

    config: Config

    def __init_subclass__(cls) -> None:
        """Link a class's own Config to the class; an inherited Config keeps its first class."""
        super().__init_subclass__()
        own = cls.__dict__.get("Config")
        if isinstance(own, type) and issubclass(own, Component.Config) and "component" not in own.__dict__:
            own.component = cls

    @classmethod
    def holds_one(cls, field: str) -> bool:
        """Whether this field of PARTS holds one component and not a list of them."""
        return get_origin(cls.Config.model_fields[field].annotation) not in (list, tuple)

    @classmethod
    def name(cls) -> str:
        """The name that selects this component in a spec."""
        return str(cls.Config.model_fields["type"].default)

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    @classmethod
    def config_schema(cls) -> dict[str, Any]:
        """JSON Schema of the config."""
        return cls.Config.model_json_schema()
