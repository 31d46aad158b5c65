"""A study: every variant with every seed, each an independent run that resumes, and what came of all of them.

Nothing that is finished is done again, so a study can be killed at any point and grows by editing its file.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from moeframe.interfaces.launcher import Task
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent, Watcher
from moeframe.report.study.page import write_study
from moeframe.report.study.rows import PlannedRun, Standing, Table
from moeframe.storage.atomic import write_file
from moeframe.storage.study_folder import StudyFolder, read_mapping
from moeframe.studies.cost import all_training_calls, joint_calls, predicted_costs, sources_of, training_calls
from moeframe.studies.resume import (
    changes_since,
    check_resumable,
    expect_own,
    missing_metrics,
    missing_timing_metrics,
    runs_of,
)
from moeframe.studies.study_file import Study, Variant
from moeframe.studies.worker import StudyTask, What, concurrent_metrics, exclusive_metrics, failure_of, settings_of

Run: TypeAlias = tuple[Variant, int]
"""A variant and a seed."""

WORDS: dict[What, tuple[str, str]] = {
    "train": ("runs", ""),
    "measure": ("metrics that finished runs lack", ", metrics"),
    "measure alone": ("times and memory, one by one", ", times and memory"),
}
"""What the watcher and the tasks are told."""


def study_folder_of(name: str, out: Path | None) -> Path:
    """studies/NAME below the working directory, unless another folder is named."""
    return Path("studies") / name if out is None else out


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan(study: Study, folder: Path) -> list[PlannedRun]:
    """Every run with its state and predicted cost; variants with equal specs are one.

    Seconds are those of the variant's finished runs, or, where there are none, of all finished runs by what training
    and sampling take, in operations, or in calls where not all operations are known beforehand.
    Raises RunFolderError for the folder of another study.
    """
    place = StudyFolder(folder)
    study = _settled(study, place)
    if place.record.exists():
        expect_own(study, place)
    taken = {
        variant.name: [
            read_mapping(path)["seconds"] for seed in study.seeds if (path := _finished(place, variant, seed))
        ]
        for variant in study.variants
    }
    costs = predicted_costs(study, Registry.installed())
    in_flops = all(costs[variant.name].flops_per_call for variant in _distinct(study))
    work = {name: cost.work((in_flops and cost.flops_per_call) or 1.0) for name, cost in costs.items()}
    rates = [statistics.mean(seconds) / work[name] for name, seconds in taken.items() if seconds and work[name]]
    found = []
    for variant in _distinct(study):
        cost = costs[variant.name]
        seconds = statistics.mean(taken[variant.name]) if taken[variant.name] else None
        if seconds is None and rates:
            seconds = statistics.mean(rates) * work[variant.name] or None
        for seed in study.seeds:
            if not study.asks(variant, seed):
                continue
            status, cause = _standing(study, place, variant, seed)
            found.append(
                PlannedRun(
                    variant=variant.name,
                    seed=seed,
                    status=status,
                    cause=cause,
                    training_calls=cost.training_calls,
                    training_flops=cost.training_flops,
                    sampling_calls=cost.sampling_calls,
                    seconds=seconds,
                )
            )
    return found


def _standing(study: Study, place: StudyFolder, variant: Variant, seed: int) -> tuple[Standing, str]:
    """How a run stands against what the study says now, and why."""
    if changes := changes_since(variant, seed, study, place):
        return "changed", "; ".join(changes[:4])
    status, cause = place.status(variant.name, seed)
    if status == "finished":
        lacks = [*missing_metrics(variant, seed, place), *missing_timing_metrics(variant, seed, place)]
        if lacks:
            return "to measure", "; ".join([", ".join(lacks), *filter(None, [cause])])
    return status, cause


def _finished(place: StudyFolder, variant: Variant, seed: int) -> Path | None:
    path = place.seconds(variant.name, seed)
    return path if path.exists() and place.status(variant.name, seed)[0] == "finished" else None


def _settled(study: Study, place: StudyFolder) -> Study:
    """The study with equal variants sharing the runs of the one that has any: the order of the file may change."""
    instead: dict[str, str] = {}
    for variant in study.variants:
        first = variant.same_as
        if first is not None and not place.runs_of(first).exists() and place.runs_of(variant.name).exists():
            instead.setdefault(first, variant.name)
    variants = []
    for variant in study.variants:
        owner = instead.get(variant.same_as or variant.name, variant.same_as)
        variants.append(dataclasses.replace(variant, same_as=None if owner == variant.name else owner))
    return dataclasses.replace(study, variants=tuple(variants))


def _distinct(study: Study) -> Iterator[Variant]:
    """The variants that have runs of their own."""
    return (variant for variant in study.variants if variant.same_as is None)


# --- carrying it out --------------------------------------------------------------------------------------------------


def run_study(study: Study, folder: Path, watcher: Watcher | None = None) -> Table:
    """Do what is asked and not done yet, each run in a process of its own; write tables and page; return the table.

    A run that fails is recorded with its cause and stops no other. Raises RunFolderError for the folder of another
    study, or for a variant whose settings are no longer those of its finished runs.
    """
    watcher, place = watcher or Silent(), StudyFolder(folder)
    with place.claimed():
        study = _settled(study, place)
        check_resumable(study, place)
        write_file(place.record, _json(_facts(study, place)))
        for wave in range(1 + max(study.depth(variant) for variant in study.variants)):
            runs = [
                (variant, seed)
                for variant, seed in _asked(study)
                if study.depth(variant) == wave and place.status(variant.name, seed)[0] != "finished"
            ]
            _launch("train", runs, study, place, watcher)
        finished = [run for run in _asked(study) if place.status(run[0].name, run[1])[0] == "finished"]
        _measure(finished, "measure", missing_metrics, study, place, watcher)
        _measure(finished, "measure alone", missing_timing_metrics, study, place, watcher)
        return gather(study, folder)


def _measure(
    finished: list[Run],
    what: What,
    lacks: Callable[[Variant, int, StudyFolder], list[str]],
    study: Study,
    place: StudyFolder,
    watcher: Watcher,
) -> None:
    """Of finished runs what they lack; a failure is forgotten where nothing is asked for any longer."""
    runs = [run for run in finished if lacks(*run, place)]
    for variant, seed in finished:
        if (variant, seed) not in runs:
            failure_of(what, place, variant.name, seed).unlink(missing_ok=True)
    _launch(what, runs, study, place, watcher)


def _asked(study: Study) -> Iterator[Run]:
    """Seed by seed: a study that is stopped has whole pairs."""
    for seed in study.seeds:
        for variant in _distinct(study):
            if study.asks(variant, seed):
                yield variant, seed


def _launch(what: What, runs: list[Run], study: Study, place: StudyFolder, watcher: Watcher) -> None:
    if not runs:
        return
    watcher.begin(WORDS[what][0], len(runs))
    failures = {}
    tasks = []
    for variant, seed in runs:
        task = _task(place, study, variant, seed, what)
        failures[task.name] = failure_of(what, place, variant.name, seed)
        tasks.append(task)
    for ended in study.launcher.run(tasks):
        watcher.advance(f"{ended.task.name}{'' if ended.exit_status == 0 else ' failed'}")
        failure = failures[ended.task.name]
        if ended.exit_status != 0 and not failure.exists():  # it was killed before it could say why
            cause = f"ended with status {ended.exit_status} and said no more; see {ended.task.log}"
            write_file(failure, _json({"cause": cause}))


def _task(place: StudyFolder, study: Study, variant: Variant, seed: int, what: What = "train") -> Task:
    source = None if variant.weights_of is None else study.source_of(variant.weights_of)
    asked = {"train": [], "measure": concurrent_metrics(variant.spec), "measure alone": exclusive_metrics(variant.spec)}
    task = StudyTask(
        study=place.path,
        variant=variant.name,
        seed=seed,
        what=what,
        overrides=[f"{path}={folder}" for path, folder in runs_of(place, study, variant, seed).items()],
        weights_of=source,
        sources=sources_of(study, variant),
        metrics=settings_of(asked[what]),
    )
    name = f"{variant.name}, seed {seed}{WORDS[what][1]}"
    command = (sys.executable, "-m", "moeframe.studies.worker", task.model_dump_json())
    return Task(name, command, place.log(variant.name, seed), Path.cwd(), exclusive=what == "measure alone")


# --- what came of it --------------------------------------------------------------------------------------------------


def gather(study: Study, folder: Path) -> Table:
    """Write study.json, tables and page from the results that are there; the same results give the same bytes."""
    place = StudyFolder(folder)
    write_file(place.record, _json(_facts(_settled(study, place), place)))
    return write_study(folder)


def _facts(study: Study, place: StudyFolder) -> dict[str, object]:
    """What study.json says before it is filled from the runs.

    A variant that is not asked for this time, and whose settings are no longer those of its runs, stays as it was.
    """
    record = read_mapping(place.record) if place.record.exists() else {}
    before = {row["name"]: {**row, "runs": []} for row in record.get("variants", [])}
    changed = {
        variant.name
        for variant in _distinct(study)
        if variant.name in before and any(changes_since(variant, seed, study, place) for seed in study.seeds)
    }
    return {
        "schema_version": 2,
        "name": study.name,
        "seeds": list(study.seeds),
        "baseline": study.baseline,
        "compare": [list(pair) for pair in study.compare],
        "changes": list(study.changes),
        "dataset": study.variants[0].spec.dataset.type,
        "variants": [
            before[variant.name] if variant.name in changed else _facts_of(study, variant) for variant in study.variants
        ],
    }


def _facts_of(study: Study, variant: Variant) -> dict[str, object]:
    return {
        "name": variant.name,
        "title": variant.title,
        "group": variant.group,
        "changes": list(variant.changes),
        "same_as": variant.same_as,
        "weights_of": variant.weights_of,
        "runs_of": list(dict.fromkeys(variant.runs_of.values())),
        "spec_hash": variant.spec.hash(),
        "training_calls": all_training_calls(study, variant),
        "own_training_calls": training_calls(variant),
        "joint_calls": joint_calls(variant),
        "warm_start_steps": variant.spec.warm_start_steps,
        "n_experts": variant.spec.n_experts,
        "batch_size": variant.spec.training.batch_size,
        "steps": variant.spec.training.steps,
        "sampler": f"{variant.spec.sampler.type}, {variant.spec.sampler.steps} steps",
        "metrics": [metric.key for metric in variant.spec.metrics],
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
