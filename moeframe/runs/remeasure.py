"""Measuring finished runs again: with other settings, or only their missing metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moeframe.errors import RunFolderError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent, Watcher
from moeframe.runs.environment import describe_environment, write_environment
from moeframe.runs.loaded import load_seed
from moeframe.runs.measuring import evaluate_seed, summarise
from moeframe.spec.loader import Override, load_spec
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.results import Results, read_json, read_metrics
from moeframe.storage.run_folder import MEASURING, RunFolder, spec_changes


def evaluate(folder: str | Path, *, overrides: Sequence[str] = (), watcher: Watcher | None = None) -> Results:
    """Evaluate a trained run again; `overrides` may change metrics, evaluation and sampler, not the training.

    results.json, report and the folder's spec.yaml are rewritten. Raises RunFolderError, CheckpointError or SpecError.
    """
    registry = Registry.installed()
    place = RunFolder(Path(folder))
    place.read_spec()
    # resolved again: settings newer than the run take their defaults
    trained = load_spec(place.spec, registry).dump()
    spec = load_spec(place.spec, registry, overrides)
    others = [change for change in spec_changes(trained, spec.dump()) if not change.startswith(MEASURING)]
    if others:
        raise RunFolderError(f"{place.path}: {'; '.join(others)}: evaluate can only change {', '.join(MEASURING)}")
    with place.claimed():
        place.forget_sweep()
        for seed in spec.seeds:
            loaded = load_seed(place, spec, registry, seed)
            assembly = dataclasses.replace(loaded.assembly, model=loaded.denoiser)
            evaluate_seed(place.seed(seed), assembly, watcher or Silent())
        place.write_spec(spec)
        write_environment(place, spec.device)
        return summarise(place, spec)


def measure_missing(
    folder: str | Path, metrics: Sequence[Mapping[str, Any]], watcher: Watcher | None = None
) -> Results:
    """Measure those of `metrics` (settings) that a trained run is missing; equal earlier measurements are kept.

    Metrics that are not among them stay too; those for which weights or packages were missing are tried again. Results,
    report and the folder's spec.yaml are rewritten; the environment is that of the run, and a figure that another one
    measured says so. Raises what `evaluate` raises.
    """
    registry, watcher = Registry.installed(), watcher or Silent()
    place = RunFolder(Path(folder))
    place.read_spec()
    earlier = {metric.key: metric.model_dump(mode="json") for metric in load_spec(place.spec, registry).metrics}
    wanted = load_spec(place.spec, registry, [Override("metrics", list(map(dict, metrics)), str(place.spec))]).metrics
    requested = {metric.key: metric.model_dump(mode="json") for metric in wanted}
    together = list({**requested, **earlier, **requested}.values())  # requested metrics first, then earlier ones
    spec = load_spec(place.spec, registry, [Override("metrics", together, str(place.spec))])
    same = {metric.key for metric in spec.metrics if earlier.get(metric.key) == metric.model_dump(mode="json")}
    with place.claimed():
        recorded, now = read_json(place.environment), describe_environment(spec.device)
        differently = {name: value for name, value in now.items() if recorded.get(name) != value}
        for seed in spec.seeds:
            loaded, entries = load_seed(place, spec, registry, seed), dict(read_metrics(place.metrics(seed)))
            evaluation = ModelEvaluation(loaded.assembly, loaded.denoiser, place.seed(seed))
            there = {key for key in same & set(entries) if not entries[key].get("missing")}
            missing = [metric for metric in loaded.assembly.metrics if metric.config.key not in there]
            watcher.begin(f"seed {seed}: evaluation", len(missing))
            for metric in missing:
                entry = measure(metric, evaluation)
                if "how" in entry and differently:
                    entry["how"] = {**entry["how"], "measured_with": differently}
                entries[metric.config.key] = entry
                watcher.advance(metric.config.key)
            ordered = {metric.config.key: entries[metric.config.key] for metric in loaded.assembly.metrics}
            write_file(place.metrics(seed), as_json(ordered))
        place.write_spec(spec)
        return summarise(place, spec)
