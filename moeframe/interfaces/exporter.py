"""Exporter: a trained model as files that others load."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule


@dataclass(frozen=True)
class TrainedModel:
    """One seed of a finished run, with the weights that are evaluated."""

    name: str
    denoiser: nn.Module
    """The merged model, a MergedDenoiser."""
    experts: tuple[Expert, ...]
    schedule: NoiseSchedule
    sampler: Sampler
    image: ImageShape
    seed: int
    spec: Mapping[str, Any]
    """The resolved spec as plain values."""
    results: Mapping[str, Any]
    """results.json; empty where the run was not measured."""
    card: Mapping[str, Any]
    """card.json, where data and weights come from."""


class Exporter(Component):
    """Writes the merged model, or one of its experts, into a folder in some format."""

    KIND: ClassVar[str] = "exporters"

    class Config(Component.Config):
        pass

    config: Config

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def export_merged(self, model: TrainedModel, folder: Path) -> str:
        """Write the merged model into the empty folder; return how to load it, as code or as an entry of a spec.

        Raises InputError for a model that the format cannot represent.
        """

    @abstractmethod
    def export_expert(self, model: TrainedModel, expert: int, folder: Path) -> str:
        """Write one expert; otherwise as `export_merged`."""
