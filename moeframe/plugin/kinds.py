"""The kinds of component, each declared once: hooks, command line, spec sections and contract checks follow from here.

A new kind is a row of `ALL_KINDS` and a file in moeframe/interfaces; its section of the spec is a field of RunSpec.
Nothing heavy is imported, so that the command line can read the table.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moeframe.interfaces.component import Component


@dataclass(frozen=True)
class Kind:
    """One kind of component."""

    plural: str
    """Its name in hooks, on the command line and as `Component.KIND`."""
    singular: str
    """Its name in messages."""
    abstract_class: str
    """Where the abstract class of its components is, `module:Class`."""
    summary: str
    """What its components are, in one line."""
    section: str | None = None
    """The section of the spec that names its components; None for a kind that is chosen elsewhere."""
    is_list: bool = False
    """Whether the section holds a list of components rather than one."""
    optional: bool = False
    """Whether a spec may leave the section out."""
    contract: str | None = None
    """Where the check of its contract is, `module:function`; None where the rules of all kinds suffice."""

    @property
    def hook(self) -> str:
        """Name of the hook through which a plugin supplies its components."""
        return f"moeframe_{self.plural}"

    def load_class(self) -> "type[Component]":
        """Import the abstract class."""
        component: type[Component] = _load(self.abstract_class)
        return component

    def load_contract(self) -> Callable[..., None] | None:
        """Import the check of the contract, if the kind has its own."""
        if self.contract is None:
            return None
        check: Callable[..., None] = _load(self.contract)
        return check


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


_MODEL_CONTRACTS = "moeframe.testing.model_contracts"
_CONTRACTS = "moeframe.testing.contracts"

ALL_KINDS: tuple[Kind, ...] = (
    Kind(
        "datasets",
        "dataset",
        "moeframe.interfaces.dataset:Dataset",
        "images with a train and a test split",
        section="dataset",
        contract=f"{_CONTRACTS}:check_dataset",
    ),
    Kind(
        "slicers",
        "slicer",
        "moeframe.interfaces.slicer:Slicer",
        "partitions of the data, one slice per expert",
        section="slicer",
        optional=True,
        contract=f"{_CONTRACTS}:check_slicer",
    ),
    Kind(
        "trunks",
        "trunk",
        "moeframe.interfaces.trunk:Trunk",
        "layers that experts share",
        section="trunk",
        optional=True,
        contract=f"{_MODEL_CONTRACTS}:check_trunk",
    ),
    Kind(
        "experts",
        "expert",
        "moeframe.interfaces.expert:Expert",
        "denoising networks",
        section="experts",
        is_list=True,
        contract=f"{_MODEL_CONTRACTS}:check_expert",
    ),
    Kind(
        "gates",
        "gate",
        "moeframe.interfaces.gate:Gate",
        "weights of the experts",
        section="gate",
        optional=True,
        contract=f"{_MODEL_CONTRACTS}:check_gate",
    ),
    Kind(
        "losses",
        "loss",
        "moeframe.interfaces.loss:Loss",
        "terms of the objective",
        section="objective",
        is_list=True,
        contract=f"{_CONTRACTS}:check_loss",
    ),
    Kind(
        "schedules",
        "schedule",
        "moeframe.interfaces.schedule:NoiseSchedule",
        "log-SNR as a function of time",
        section="schedule",
        contract=f"{_CONTRACTS}:check_schedule",
    ),
    Kind(
        "samplers",
        "sampler",
        "moeframe.interfaces.sampler:Sampler",
        "ways from noise to an image",
        section="sampler",
        contract=f"{_CONTRACTS}:check_sampler",
    ),
    Kind(
        "metrics",
        "metric",
        "moeframe.interfaces.metric:Metric",
        "measurements of a finished model",
        section="metrics",
        is_list=True,
        optional=True,
        contract=f"{_CONTRACTS}:check_metric",
    ),
    Kind(
        "exporters",
        "exporter",
        "moeframe.interfaces.exporter:Exporter",
        "formats that a trained model is written in; `moeframe export` names one",
        contract=f"{_MODEL_CONTRACTS}:check_exporter",
    ),
    Kind(
        "launchers",
        "launcher",
        "moeframe.interfaces.launcher:Launcher",
        "places where the runs of a study are executed; a study file names one",
        contract=f"{_CONTRACTS}:check_launcher",
    ),
)
