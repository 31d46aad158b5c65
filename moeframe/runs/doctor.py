"""What is installed here, which data is found, and which metrics cannot be computed and what to do about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from moeframe.assembly import build_metrics, resolve_device
from moeframe.errors import MoeframeError
from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.metric import Metric
from moeframe.plugin.registry import Registry
from moeframe.runs.environment import NOT_INSTALLED, describe_environment
from moeframe.spec.loader import load_spec
from moeframe.spec.schema import RunSpec

EXTRAS = {"torch-fidelity": "quality", "lpips": "quality"}
"""Package that is optional to the extra of moeframe that installs it."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    ok: bool
    """False when it is missing."""
    detail: str
    """What was found; what to do when it is missing."""
    needed: bool = True
    """Whether the spec needs it."""


def examine(spec_path: Path | None, overrides: Sequence[str]) -> list[Finding]:
    """Findings about the installation, or about what one spec needs."""
    registry = Registry.installed()
    if spec_path is None:
        return [*_installation(registry), *_everything(registry)]
    spec = load_spec(spec_path, registry, overrides)
    return [*_installation(registry), *_needs(spec, registry)]


def _installation(registry: Registry) -> Iterator[Finding]:
    for name, value in describe_environment("auto").items():
        if value == NOT_INSTALLED:
            package = f"'moeframe[{EXTRAS[name]}]'" if name in EXTRAS else name
            yield Finding(name, False, f"not installed; install it with pip install {package}", needed=False)
        else:
            yield Finding(name, True, str(value), needed=False)
    if not torch.cuda.is_available():
        yield Finding("GPU", True, "none; runs use the CPU", needed=False)
    for broken in registry.broken:
        yield Finding("plugin", False, f"{broken}; fix or uninstall it", needed=False)
    for conflict in registry.conflicts():
        yield Finding("plugin", False, conflict, needed=False)


def _everything(registry: Registry) -> Iterator[Finding]:
    """Check datasets and metrics with their default settings; those without defaults are only listed as installed."""
    for name in registry.names(Dataset.KIND):
        dataset_class = registry.get(Dataset, name)
        try:
            dataset = dataset_class(dataset_class.Config(type=name))
        except ValidationError as error:
            yield _needs_settings("dataset", name, error)
        else:
            yield _dataset(dataset)
    for name in registry.names(Metric.KIND):
        metric_class = registry.get(Metric, name)
        try:
            metric = metric_class(metric_class.Config(type=name))
        except ValidationError as error:
            yield _needs_settings("metric", name, error)
        else:
            yield _metric(metric)


def _needs_settings(kind: str, name: str, error: ValidationError) -> Finding:
    keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors() if item["loc"])
    detail = f"installed; set {keys or 'it up'} in a spec and check that with `moeframe doctor SPEC`"
    return Finding(f"{kind} {name}", True, detail, needed=False)


def _needs(spec: RunSpec, registry: Registry) -> Iterator[Finding]:
    try:
        yield Finding("device", True, str(resolve_device(spec.device)))
    except MoeframeError as error:
        yield Finding("device", False, str(error))
    dataset = registry.get(Dataset, spec.dataset.type)(spec.dataset)
    yield _dataset(dataset)
    if spec.slicer is not None:
        problem = spec.slicer.missing()
        yield Finding(f"slicer {spec.slicer.type}", problem is None, problem or "complete")
    for metric in build_metrics(spec, registry):
        yield _metric(metric)


def _dataset(dataset: Dataset) -> Finding:
    missing = dataset.missing()
    return Finding(f"dataset {dataset.name()}", missing is None, missing or "complete")


def _metric(metric: Metric) -> Finding:
    reason = metric.unavailable()
    return Finding(f"metric {metric.config.key}", reason is None, reason or "available")
