"""What is installed here, which data is found, and which metrics cannot be computed and why."""

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
from moeframe.runs.environment import describe_environment
from moeframe.spec.loader import load_spec
from moeframe.spec.schema import RunSpec


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    ok: bool
    detail: str


def examine(spec_path: Path | None, overrides: Sequence[str]) -> list[Finding]:
    """Findings about the installation, or about what one spec needs."""
    registry = Registry.installed()
    if spec_path is None:
        return [*_installation(registry), *_everything(registry)]
    spec = load_spec(spec_path, registry, overrides)
    return [*_installation(registry), *_needs(spec, registry)]


def _installation(registry: Registry) -> Iterator[Finding]:
    for name, value in describe_environment("auto").items():
        yield Finding(name, True, str(value))
    if not torch.cuda.is_available():
        yield Finding("GPU", True, "none found, runs use the CPU")
    for broken in registry.broken:
        yield Finding("plugin", False, str(broken))
    for conflict in registry.conflicts():
        yield Finding("plugin", False, conflict)


def _everything(registry: Registry) -> Iterator[Finding]:
    """Components that can be judged without a spec: those whose config has defaults for everything."""
    for name in registry.names(Dataset.KIND):
        dataset_class = registry.get(Dataset, name)
        try:
            dataset = dataset_class(dataset_class.Config(type=name))
        except ValidationError:
            yield Finding(f"dataset {name}", True, "depends on its settings; ask with a spec")
        else:
            yield _dataset(dataset)
    for name in registry.names(Metric.KIND):
        metric_class = registry.get(Metric, name)
        try:
            metric = metric_class(metric_class.Config(type=name))
        except ValidationError:
            yield Finding(f"metric {name}", True, "depends on its settings; ask with a spec")
        else:
            yield _metric(metric)


def _needs(spec: RunSpec, registry: Registry) -> Iterator[Finding]:
    try:
        yield Finding("device", True, str(resolve_device(spec.device)))
    except MoeframeError as error:
        yield Finding("device", False, str(error))
    dataset = registry.get(Dataset, spec.dataset.type)(spec.dataset)
    yield _dataset(dataset)
    if spec.slicer is not None:
        lacking = spec.slicer.missing()
        yield Finding(f"slicer {spec.slicer.type}", lacking is None, lacking or "complete")
    for metric in build_metrics(spec, registry):
        yield _metric(metric)


def _dataset(dataset: Dataset) -> Finding:
    missing = dataset.missing()
    return Finding(f"dataset {dataset.name()}", missing is None, missing or "complete")


def _metric(metric: Metric) -> Finding:
    reason = metric.unavailable()
    return Finding(f"metric {metric.config.key}", reason is None, reason or "available")
