"""Resuming a study: whether its folder holds runs of these settings, and which metrics they miss."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from moeframe.errors import RunFolderError, SpecError
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.storage.atomic import LOCK, write_file
from moeframe.storage.results import read_metrics
from moeframe.storage.run_folder import MEASURING, RunFolder, spec_changes
from moeframe.storage.study_folder import StudyFolder, read_mapping
from moeframe.studies.cost import sources_of
from moeframe.studies.study_file import Study, Variant
from moeframe.studies.worker import (
    component_of,
    concurrent_metrics,
    exclusive_metrics,
    settings_of,
    weights_key,
    weights_of_all,
)


def expect_own(study: Study, place: StudyFolder) -> None:
    """Raise RunFolderError unless the folder is empty or holds this study with its runs."""
    if place.records.exists() and not place.runs.is_dir():
        raise RunFolderError(
            f"{place.path}: holds what a study measured ({place.records.name}) but not its runs, so no run can be "
            "resumed or added; use another --out"
        )
    if place.record.exists():
        record = read_mapping(place.record)
        name = record.get("name")
        if name != study.name:
            raise RunFolderError(
                f"{place.path}: belongs to the study '{name}', not to '{study.name}'; choose another folder with --out"
            )
        theirs = [str(row.get("name")) for row in record.get("variants", [])]
        if theirs and not {variant.name for variant in study.variants} & set(theirs):
            raise RunFolderError(
                f"{place.path}: belongs to another study '{name}' (variants {', '.join(theirs)}), which has no "
                "variant in common with this one; choose another folder with --out"
            )
    elif strangers := sorted(path.name for path in place.path.iterdir() if path.name != LOCK):
        raise RunFolderError(
            f"{place.path}: not a study folder, but holds {', '.join(strangers[:5])}; choose an empty folder with --out"
        )


def check_resumable(study: Study, place: StudyFolder) -> None:
    """Check that the study can go on in this folder, and write the spec of each variant.

    Raises RunFolderError for the folder of another study, and for a selected run that was done with other
    settings, or with weights that no longer exist. The launcher, titles, and the list of metrics may change.
    """
    expect_own(study, place)
    for variant in study.variants:
        selected = [seed for seed in study.seeds if study.includes(variant, seed)]
        for seed in selected:
            if changes := changes_since(variant, seed, study, place):
                raise RunFolderError(_refusal(changes, variant, seed, place))
            _expect_sources(variant, seed, study, place)
        if selected:
            spec = variant.spec.dump() | {"metrics": settings_of(concurrent_metrics(variant.spec))}
            write_file(place.spec(variant.name), yaml.safe_dump(spec, sort_keys=False).encode())


def changes_since(variant: Variant, seed: int, study: Study, place: StudyFolder) -> list[str]:
    """List the settings in which a run differs from the study file; metrics may differ, they can be measured later.

    One that is not finished may change in anything that says how it is measured.
    """
    folder = RunFolder(place.run(variant.name, seed))
    if not folder.spec.exists() or not folder.seeds():
        return []  # not started
    then, now = _spec_then(folder), variant.spec.model_copy(update={"seeds": [seed]}).dump()
    for path, run in runs_of(place, study, variant, seed).items():
        for each in (then, now):  # the path to the study's folder may differ from before
            _put(each, path.split("."), run)
    finished = place.results(variant.name, seed).exists()
    later = ("metrics",) if finished else MEASURING
    return [change for change in spec_changes(then, now) if not change.startswith(later)]


def _refusal(changes: Sequence[str], variant: Variant, seed: int, place: StudyFolder) -> str:
    folder = place.run(variant.name, seed)
    measuring = all(change.startswith(MEASURING) for change in changes)
    instead = f"measure it again with `moeframe evaluate {folder} --set ...`, " if measuring else ""
    return (
        f"{folder}: was run with other settings ({'; '.join(changes[:4])}); {instead}give the variant another "
        f"name, or delete {folder.parent} to run it again"
    )


def missing_metrics(variant: Variant, seed: int, place: StudyFolder) -> list[str]:
    """List the metrics to be measured: missing, measured with other settings, or unavailable until now."""
    folder = RunFolder(place.run(variant.name, seed))
    if not folder.spec.exists():
        return []
    then, found = _spec_then(folder).get("metrics", []), read_mapping(folder.results)["metrics"]
    entries = read_metrics(folder.metrics(seed)) if folder.metrics(seed).exists() else {}
    return [
        metric.key
        for metric in concurrent_metrics(variant.spec)
        if metric.key not in found
        or metric.model_dump(mode="json") not in then
        or (entries.get(metric.key, {}).get("missing") and component_of(metric).unavailable() is None)
    ]


def missing_timing_metrics(variant: Variant, seed: int, place: StudyFolder) -> list[str]:
    """List missing timings and memory, which are measured together."""
    exclusive = exclusive_metrics(variant.spec)
    path = place.alone(variant.name, seed)
    if exclusive and path.exists():
        found, weights = read_mapping(path), weights_key(place.run(variant.name, seed), seed)
        if found.get("settings") == settings_of(exclusive) and not (weights and found.get("weights") != weights):
            return []
    return [metric.key for metric in exclusive]


def runs_of(place: StudyFolder, study: Study, variant: Variant, seed: int) -> dict[str, str]:
    """Map each path of the variant's spec that names another run to that run's folder."""
    return {path: str(place.run(study.source_of(other), seed)) for path, other in variant.runs_of.items()}


def _expect_sources(variant: Variant, seed: int, study: Study, place: StudyFolder) -> None:
    path = place.sources(variant.name, seed)
    if not place.results(variant.name, seed).exists() or not path.exists():
        return
    for source, weights in weights_of_all(place, sources_of(study, variant), seed).items():
        only_results = not weights and place.results(source, seed).exists()  # as in a committed study
        if not only_results and read_mapping(path).get(source) != weights:
            folder = place.run(variant.name, seed)
            raise RunFolderError(
                f"{folder}: used weights that '{source}' no longer has; delete {folder} to use the present ones"
            )


def _spec_then(folder: RunFolder) -> dict[str, Any]:
    """The spec of a run, with defaults for settings newer than the run."""
    return copy.deepcopy(_resolved(folder.path, folder.spec.read_bytes()))


@functools.cache
def _resolved(path: Path, _content: bytes) -> dict[str, Any]:
    """Resolve a spec once per content, because plan and study need it several times per run."""
    folder = RunFolder(path)
    written = folder.read_spec()
    try:
        return load_spec(folder.spec, Registry.installed()).dump()
    except SpecError:
        return written


def _put(data: object, path: list[str], value: str) -> None:
    """Set a value in nested mappings and lists."""
    *above, last = path
    for key in above:
        data = data[int(key)] if isinstance(data, list) else data[key]  # type: ignore[index]
    assert isinstance(data, dict)
    data[last] = value
