"""A study: every variant with every seed, each an independent run that resumes, and what came of all of them.

Nothing that is finished is done again, so a study can be killed at any point and grows by editing its file.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from moeframe.errors import RunFolderError, SpecError
from moeframe.interfaces.launcher import Task
from moeframe.progress import Silent, Watcher
from moeframe.registry import Registry
from moeframe.report.study_page import write_study
from moeframe.report.study_tables import PlannedRun, Table
from moeframe.run_folder import MEASURING, RunFolder, spec_changes
from moeframe.spec_file import load_spec
from moeframe.storage import LOCK, write_file
from moeframe.study_cost import all_training_calls, joint_calls, predicted_costs, sources_of, training_calls
from moeframe.study_file import Study, Variant
from moeframe.study_folder import StudyFolder, read_mapping
from moeframe.study_task import StudyTask, asked_alone, settings_alone, weights_key, weights_of_all


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
        _expect_own(study, place)
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
            status, cause = place.status(variant.name, seed)
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
        _admit(study, place)
        for wave in range(1 + max(study.depth(variant) for variant in study.variants)):
            runs = [
                (variant, seed)
                for seed in study.seeds  # seed by seed: a study that is stopped has whole pairs
                for variant in _distinct(study)
                if study.asks(variant, seed)
                and study.depth(variant) == wave
                and place.status(variant.name, seed)[0] != "finished"
            ]
            _launch("runs" if wave == 0 else "runs that build on others", runs, study, place, watcher)
        alone = [
            (variant, seed)
            for variant in _distinct(study)
            for seed in study.seeds
            if study.asks(variant, seed)
            and place.status(variant.name, seed)[0] == "finished"
            and _lacks_alone(place, variant, seed)
        ]
        _launch("times and memory, one by one", alone, study, place, watcher, alone=True)
        return gather(study, folder)


def _launch(
    title: str,
    runs: list[tuple[Variant, int]],
    study: Study,
    place: StudyFolder,
    watcher: Watcher,
    *,
    alone: bool = False,
) -> None:
    if not runs:
        return
    watcher.begin(title, len(runs))
    failures = {}
    tasks = []
    for variant, seed in runs:
        task = _task(place, study, variant, seed, alone=alone)
        failures[task.name] = (place.alone_failure if alone else place.failure)(variant.name, seed)
        tasks.append(task)
    for ended in study.launcher.run(tasks):
        watcher.advance(f"{ended.task.name}{'' if ended.exit_status == 0 else ' failed'}")
        failure = failures[ended.task.name]
        if ended.exit_status != 0 and not failure.exists():  # it was killed before it could say why
            cause = f"ended with status {ended.exit_status} and said no more; see {ended.task.log}"
            write_file(failure, _json({"cause": cause}))


def _task(place: StudyFolder, study: Study, variant: Variant, seed: int, *, alone: bool = False) -> Task:
    source = None if variant.weights_of is None else study.source_of(variant.weights_of)
    task = StudyTask(
        study=place.path,
        variant=variant.name,
        seed=seed,
        overrides=[f"{path}={folder}" for path, folder in _runs_of(place, study, variant, seed).items()],
        weights_of=source,
        sources=sources_of(study, variant),
        alone=settings_alone(variant.spec) if alone else [],
    )
    name = f"{variant.name}, seed {seed}"
    command = (sys.executable, "-m", "moeframe.study_task", task.model_dump_json())
    name += ", times and memory" if alone else ""
    return Task(name, command, place.log(variant.name, seed), Path.cwd(), exclusive=alone)


def _runs_of(place: StudyFolder, study: Study, variant: Variant, seed: int) -> dict[str, str]:
    """The run folders of this seed that stand in the variant's spec, by their place in it."""
    return {path: str(place.run(study.source_of(other), seed)) for path, other in variant.runs_of.items()}


def _lacks_alone(place: StudyFolder, variant: Variant, seed: int) -> bool:
    asked = settings_alone(variant.spec)
    path = place.alone(variant.name, seed)
    if not asked or not path.exists():
        return bool(asked)
    found, weights = read_mapping(path), weights_key(place.run(variant.name, seed), seed)
    return found.get("settings") != asked or bool(weights and found.get("weights") != weights)


# --- what may be in the folder ----------------------------------------------------------------------------------------


def _expect_own(study: Study, place: StudyFolder) -> None:
    if place.record.exists():
        record = read_mapping(place.record)
        name = record.get("name")
        if name != study.name:
            raise RunFolderError(f"{place.path}: is the folder of the study '{name}', not of '{study.name}'; use --out")
        theirs = [str(row.get("name")) for row in record.get("variants", [])]
        if theirs and not {variant.name for variant in study.variants} & set(theirs):
            raise RunFolderError(
                f"{place.path}: is the folder of another study '{name}', of {', '.join(theirs)}, none of which this "
                "one has; use --out"
            )
    elif strangers := sorted(path.name for path in place.path.iterdir() if path.name != LOCK):
        raise RunFolderError(f"{place.path}: holds {', '.join(strangers[:5])} but no study; choose an empty folder")


def _admit(study: Study, place: StudyFolder) -> None:
    _expect_own(study, place)
    for variant in study.variants:
        _admit_variant(variant, study, place)
    # the launcher, titles and the like may change; what was run may not
    write_file(place.record, _json(_facts(study)))


def _admit_variant(variant: Variant, study: Study, place: StudyFolder) -> None:
    spec = variant.spec.model_copy(update={"metrics": [m for m in variant.spec.metrics if not asked_alone(m)]})
    for seed in study.seeds:
        folder = place.run(variant.name, seed)
        if not RunFolder(folder).spec.exists() or not RunFolder(folder).seeds():
            continue  # nothing was begun
        then, now = _spec_then(RunFolder(folder)), spec.model_copy(update={"seeds": [seed]}).dump()
        for path, run in _runs_of(place, study, variant, seed).items():
            for each in (then, now):  # the study's folder may be named in another way than before
                _put(each, path.split("."), run)
        if changes := spec_changes(then, now):
            measuring = all(change.startswith(MEASURING) for change in changes)
            instead = f"measure it anew with `moeframe evaluate {folder} --set ...`, " if measuring else ""
            raise RunFolderError(
                f"{folder}: was run with other settings ({'; '.join(changes[:4])}); {instead}give the variant another "
                f"name, or delete {folder.parent} to run it again"
            )
        _expect_sources(variant, seed, study, place)
    write_file(place.spec(variant.name), yaml.safe_dump(spec.dump(), sort_keys=False).encode())


def _expect_sources(variant: Variant, seed: int, study: Study, place: StudyFolder) -> None:
    path = place.sources(variant.name, seed)
    if not place.results(variant.name, seed).exists() or not path.exists():
        return
    for source, weights in weights_of_all(place, sources_of(study, variant), seed).items():
        only_results = not weights and place.results(source, seed).exists()  # as in a study that is kept
        if not only_results and read_mapping(path).get(source) != weights:
            folder = place.run(variant.name, seed)
            raise RunFolderError(
                f"{folder}: was made of weights that are no longer those of '{source}'; delete {folder} to use the "
                "present ones"
            )


def _spec_then(folder: RunFolder) -> dict[str, Any]:
    """What was run; a setting that is younger than the run has its default there too."""
    written = folder.read_spec()
    try:
        return load_spec(folder.spec, Registry.installed()).dump()
    except SpecError:
        return written


def _put(data: object, path: list[str], value: str) -> None:
    """Set a value of nested mappings and lists."""
    *above, last = path
    for key in above:
        data = data[int(key)] if isinstance(data, list) else data[key]  # type: ignore[index]
    assert isinstance(data, dict)
    data[last] = value


# --- what came of it --------------------------------------------------------------------------------------------------


def gather(study: Study, folder: Path) -> Table:
    """Write study.json, tables and page from the results that are there; the same results give the same bytes."""
    place = StudyFolder(folder)
    write_file(place.record, _json(_facts(_settled(study, place))))
    return write_study(folder)


def _facts(study: Study) -> dict[str, object]:
    """What study.json says before it is filled from the runs."""
    return {
        "schema_version": 2,
        "name": study.name,
        "seeds": list(study.seeds),
        "baseline": study.baseline,
        "compare": [list(pair) for pair in study.compare],
        "dataset": study.variants[0].spec.dataset.type,
        "variants": [
            {
                "name": variant.name,
                "title": variant.title,
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
            }
            for variant in study.variants
        ],
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
