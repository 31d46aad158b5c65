"""A study: every variant with every seed, each an independent run that resumes, and what came of all of them.

    studies/NAME/study.json               the variants, their runs and how each ended
    studies/NAME/specs/VARIANT.yaml       the resolved spec of each
    studies/NAME/runs/VARIANT/SEED/       a run folder each; beside it SEED.log and, where it failed, SEED.failure.json
    studies/NAME/phase_one/               warm starts that variants share

Nothing that is finished is done again, so a study can be killed at any point and grows by editing its file.
"""

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from moeframe import checkpoint
from moeframe.errors import RunFolderError
from moeframe.interfaces.launcher import Task
from moeframe.interfaces.loss import Loss
from moeframe.progress import Silent, Watcher
from moeframe.report.results import read_json
from moeframe.report.study_tables import PlannedRun, write_tables
from moeframe.run_folder import RunFolder, spec_changes
from moeframe.storage import explaining, write_file
from moeframe.study_file import Study, Variant

Status = Literal["finished", "failed", "to do"]
FAILURE = "failure.json"
RECORD = "study.json"


class StudyFolder:
    """Paths of one study."""

    def __init__(self, path: Path):
        self.path = path
        self.phase_one = path / "phase_one"

    def run(self, variant: str, seed: int) -> Path:
        """Folder of one run."""
        return self.path / "runs" / variant / str(seed)

    def spec(self, variant: str) -> Path:
        """Its spec, of all seeds."""
        return self.path / "specs" / f"{variant}.yaml"

    def status(self, variant: str, seed: int) -> tuple[Status, str]:
        """How a run stands, and why it failed."""
        folder = self.run(variant, seed)
        if (folder / "results.json").exists():
            return "finished", ""
        failure = folder.parent / f"{seed}.{FAILURE}"
        if failure.exists():
            return "failed", str(read_json(failure).get("cause", "unknown"))
        return "to do", ""

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder for one process."""
        with explaining(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"{self.path}: another moeframe process works on this study; wait for it or choose --out"
                ) from None
            yield


def study_folder_of(name: str, out: Path | None) -> Path:
    """studies/NAME below the working directory, unless another folder is named."""
    return Path("studies") / name if out is None else out


def plan(study: Study, folder: Path) -> list[PlannedRun]:
    """Every run with its state and predicted cost; variants with equal specs are one."""
    place = StudyFolder(folder)
    found = []
    for variant in study.variants:
        if variant.same_as is not None:
            continue
        for seed in study.seeds:
            status, cause = place.status(variant.name, seed)
            training = 0 if variant.weights_of is not None else _training_calls(variant)
            calls = _calls_per_step(variant) * variant.spec.sampler.evaluations
            found.append(
                PlannedRun(
                    variant=variant.name,
                    seed=seed,
                    status=status,
                    cause=cause,
                    training_calls=training,
                    sampling_calls=calls,
                )
            )
    return found


def _training_calls(variant: Variant) -> int:
    """Phase 1 asks every expert; phase 2 those that the gate asks, none where no term looks at their predictions."""
    spec = variant.spec
    if spec.training.trainable == "none":
        return 0
    looks = any(_needs_prediction(term) for term in spec.objective)
    joint = (spec.training.steps - spec.warm_start_steps) * (_calls_per_step(variant) if looks else 0)
    return (spec.warm_start_steps * spec.n_experts + joint) * spec.training.batch_size


def _calls_per_step(variant: Variant) -> int:
    k = variant.spec.n_experts
    return k if variant.spec.gate is None else variant.spec.gate.asked(k)


def _needs_prediction(term: Loss.Config) -> bool:
    component = term.component
    assert issubclass(component, Loss)
    return component.NEEDS_PREDICTION


def run_study(study: Study, folder: Path, watcher: Watcher | None = None) -> Path:
    """Do what is not done yet, each run in a process of its own, then write the tables; returns study.json.

    A run that fails is recorded with its cause and stops no other. Raises RunFolderError for the folder of another
    study, or for a variant whose settings are no longer those of its finished runs.
    """
    watcher, place = watcher or Silent(), StudyFolder(folder)
    with place.claimed():
        _admit(study, place)
        for wave in (False, True):  # first those that train, then those that measure the weights of others
            tasks = [
                _task(place, study, variant, seed)
                for seed in study.seeds  # seed by seed: a study that is stopped has whole pairs
                for variant in study.variants
                if variant.same_as is None and (variant.weights_of is not None) is wave
                if place.status(variant.name, seed)[0] != "finished"
            ]
            watcher.begin("training" if not wave else "measuring weights of others", len(tasks))
            for ended in study.launcher.run(tasks):
                watcher.advance(f"{ended.task.name}{'' if ended.exit_status == 0 else ' failed'}")
                failure = ended.task.log.with_suffix(f".{FAILURE}")
                if ended.exit_status != 0 and not failure.exists():  # it was killed before it could say why
                    cause = f"ended with status {ended.exit_status} and said no more; see {ended.task.log}"
                    write_file(failure, _json({"cause": cause}))
        return gather(study, folder)


def _admit(study: Study, place: StudyFolder) -> None:
    if (place.path / RECORD).exists():
        name = read_json(place.path / RECORD).get("name")
        if name != study.name:
            raise RunFolderError(f"{place.path}: is the folder of the study '{name}', not of '{study.name}'; use --out")
    elif strangers := sorted(path.name for path in place.path.iterdir() if path.name != ".lock"):
        raise RunFolderError(f"{place.path}: holds {', '.join(strangers[:5])} but no study; choose an empty folder")
    for variant in study.variants:
        _admit_variant(variant, study, place)
    # the launcher, titles and the like may change; what was run may not
    write_file(place.path / RECORD, _json({"name": study.name, "variants": [v.name for v in study.variants]}))


def _admit_variant(variant: Variant, study: Study, place: StudyFolder) -> None:
    for seed in study.seeds:
        folder = place.run(variant.name, seed)
        if not (folder / "results.json").exists():
            continue
        changes = spec_changes(RunFolder(folder).read_spec(), variant.spec.model_copy(update={"seeds": [seed]}).dump())
        if changes:
            raise RunFolderError(
                f"{folder}: was run with other settings ({'; '.join(changes[:4])}); give the variant another name, or "
                f"delete {folder.parent} to run it again"
            )
        if variant.weights_of is not None:
            source = place.run(study.source_of(variant.weights_of), seed)
            own, theirs = (_last_state(each, seed) for each in (folder, source))
            if own != theirs:
                raise RunFolderError(
                    f"{folder}: was measured with weights that are no longer those of '{variant.weights_of}'; delete "
                    f"{folder} to measure the present ones"
                )
    write_file(place.spec(variant.name), yaml.safe_dump(variant.spec.dump(), sort_keys=False).encode())


def _last_state(folder: Path, seed: int) -> bytes:
    """The record, checksums included, of a run's last checkpoint; empty where there is none."""
    newest = checkpoint.latest(RunFolder(folder).checkpoints(seed))
    return b"" if newest is None else (newest / checkpoint.STATE).read_bytes()


def _task(place: StudyFolder, study: Study, variant: Variant, seed: int) -> Task:
    folder = place.run(variant.name, seed)
    command = [sys.executable, "-m", "moeframe.study_task", str(place.spec(variant.name)), str(seed), str(folder)]
    command.append(str(place.phase_one))
    if variant.weights_of is not None:
        command.append(str(place.run(study.source_of(variant.weights_of), seed)))
    return Task(f"{variant.name}, seed {seed}", tuple(command), folder.parent / f"{seed}.log")


def gather(study: Study, folder: Path) -> Path:
    """Write study.json and the tables from the results that are there; the same results give the same bytes."""
    place, rows = StudyFolder(folder), []
    for variant in study.variants:
        source = variant.same_as or variant.name
        runs = []
        for seed in study.seeds:
            status, cause = place.status(source, seed)
            results = read_json(place.run(source, seed) / "results.json") if status == "finished" else {}
            runs.append({"seed": seed, "status": status, "cause": cause, "metrics": results.get("metrics", {})})
        rows.append(
            {
                "name": variant.name,
                "title": variant.title,
                "same_as": variant.same_as,
                "weights_of": variant.weights_of,
                "spec_hash": variant.spec.hash(),
                "training_calls": 0 if variant.weights_of else _training_calls(variant),
                "runs": runs,
            }
        )
    record: dict[str, Any] = {
        "schema_version": 1,
        "name": study.name,
        "seeds": list(study.seeds),
        "baseline": study.baseline,
        "dataset": study.variants[0].spec.dataset.type,
        "variants": rows,
    }
    path = folder / RECORD
    write_file(path, _json(record))
    write_tables(folder, record)
    return path


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
