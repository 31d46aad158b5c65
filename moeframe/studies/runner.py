"""Running a study: every variant with every seed, each an independent run that resumes, and their comparison.

Finished work is never repeated, so a study can be killed at any point and grows by editing its file.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from moeframe.interfaces.launcher import Task
from moeframe.progress import Silent, Watcher
from moeframe.report.study.rows import Table
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.study_folder import StudyFolder
from moeframe.studies.cost import sources_of
from moeframe.studies.plan import distinct_variants, share_runs
from moeframe.studies.record import facts_of_study, gather
from moeframe.studies.resume import check_resumable, missing_metrics, missing_timing_metrics, runs_of
from moeframe.studies.study_file import Study, Variant
from moeframe.studies.worker import StudyTask, What, concurrent_metrics, exclusive_metrics, failure_of, settings_of

Run: TypeAlias = tuple[Variant, int]
"""A variant and a seed."""

TITLES: dict[What, tuple[str, str]] = {
    "train": ("runs", ""),
    "measure": ("missing metrics of finished runs", ", metrics"),
    "measure alone": ("timings and memory, one at a time", ", timings"),
}
"""Title of the stage, and the suffix of a task's name."""


def study_folder_of(name: str, out: Path | None) -> Path:
    """Return `out`, or studies/NAME below the working directory."""
    return Path("studies") / name if out is None else out


def run_study(study: Study, folder: Path, watcher: Watcher | None = None) -> Table:
    """Run every unfinished variant and seed, each in its own process; write tables and page; return the table.

    A run that fails is recorded with its cause and does not stop the others. Raises RunFolderError for the folder of
    another study, or for a variant whose settings changed after it was run.
    """
    watcher, place = watcher or Silent(), StudyFolder(folder)
    with place.claimed():
        study = share_runs(study, place)
        check_resumable(study, place)
        write_file(place.record, as_json(facts_of_study(study, place)))
        for wave in range(1 + max(study.depth(variant) for variant in study.variants)):
            runs = [
                (variant, seed)
                for variant, seed in _selected_runs(study)
                if study.depth(variant) == wave and place.status(variant.name, seed)[0] != "finished"
            ]
            _launch("train", runs, study, place, watcher)
        finished = [run for run in _selected_runs(study) if place.status(run[0].name, run[1])[0] == "finished"]
        _measure(finished, "measure", missing_metrics, study, place, watcher)
        _measure(finished, "measure alone", missing_timing_metrics, study, place, watcher)
        return gather(study, folder)


def _measure(
    finished: list[Run],
    what: What,
    missing: Callable[[Variant, int, StudyFolder], list[str]],
    study: Study,
    place: StudyFolder,
    watcher: Watcher,
) -> None:
    """Measure the missing metrics of finished runs; drop the failure of a run that misses none."""
    runs = [run for run in finished if missing(*run, place)]
    for variant, seed in finished:
        if (variant, seed) not in runs:
            failure_of(what, place, variant.name, seed).unlink(missing_ok=True)
    _launch(what, runs, study, place, watcher)


def _selected_runs(study: Study) -> Iterator[Run]:
    """Yield runs seed by seed, so that an interrupted study has complete pairs."""
    for seed in study.seeds:
        for variant in distinct_variants(study):
            if study.includes(variant, seed):
                yield variant, seed


def _launch(what: What, runs: list[Run], study: Study, place: StudyFolder, watcher: Watcher) -> None:
    if not runs:
        return
    watcher.begin(TITLES[what][0], len(runs))
    failures = {}
    tasks = []
    for variant, seed in runs:
        task = _task(place, study, variant, seed, what)
        failures[task.name] = failure_of(what, place, variant.name, seed)
        tasks.append(task)
    for ended in study.launcher.run(tasks):
        watcher.advance(f"{ended.task.name}{'' if ended.exit_status == 0 else ' failed'}")
        failure = failures[ended.task.name]
        if ended.exit_status != 0 and not failure.exists():  # killed before it could report
            cause = f"exited with status {ended.exit_status}; no error message was written; see {ended.task.log}"
            write_file(failure, as_json({"cause": cause}))


def _task(place: StudyFolder, study: Study, variant: Variant, seed: int, what: What = "train") -> Task:
    source = None if variant.weights_of is None else study.source_of(variant.weights_of)
    concurrent, exclusive = concurrent_metrics(variant.spec), exclusive_metrics(variant.spec)
    metrics = {"train": [], "measure": concurrent, "measure alone": exclusive}
    task = StudyTask(
        study=place.path,
        variant=variant.name,
        seed=seed,
        what=what,
        overrides=[f"{path}={folder}" for path, folder in runs_of(place, study, variant, seed).items()],
        weights_of=source,
        sources=sources_of(study, variant),
        metrics=settings_of(metrics[what]),
    )
    name = f"{variant.name}, seed {seed}{TITLES[what][1]}"
    command = (sys.executable, "-P", "-m", "moeframe.studies.worker", task.model_dump_json())
    return Task(name, command, place.log(variant.name, seed), Path.cwd(), exclusive=what == "measure alone")
