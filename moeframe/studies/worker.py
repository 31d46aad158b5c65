"""One run of a study in its own process: python -m moeframe.studies.worker TASK, where TASK is JSON."""

import hashlib
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moeframe.errors import MoeframeError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.interfaces.metric import Metric
from moeframe.plugin.registry import Registry
from moeframe.runs.loaded import load
from moeframe.runs.pipeline import run
from moeframe.runs.remeasure import measure_missing
from moeframe.runs.shared_work import SharedWork
from moeframe.spec.schema import RunSpec
from moeframe.storage import checkpoint
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.results import combine_seeds
from moeframe.storage.run_folder import RunFolder
from moeframe.storage.study_folder import StudyFolder

What = Literal["train", "measure", "measure alone"]
"""A complete run, missing metrics of a finished one, or its timings and memory."""


class StudyTask(BaseModel):
    """The work of one process: a variant, a seed and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Path
    variant: str
    seed: int
    what: What
    overrides: list[str] = []
    """Overrides of the variant's spec: the run folders of other variants."""
    weights_of: str | None = None
    sources: list[str] = []
    """Variants whose weights this one uses; their hashes are recorded."""
    metrics: list[dict[str, Any]] = []
    """Settings of the metrics to be measured."""


def component_of(config: Metric.Config) -> Metric:
    """Build a metric from its settings."""
    component = config.component
    assert issubclass(component, Metric)
    return component(config)


def is_exclusive(config: Metric.Config) -> bool:
    """Whether a metric measures time or memory, which concurrent runs would disturb."""
    return not component_of(config).DETERMINISTIC


def exclusive_metrics(spec: RunSpec) -> list[Metric.Config]:
    """Settings of the metrics that are measured while nothing else runs."""
    return [config for config in spec.metrics if is_exclusive(config)]


def concurrent_metrics(spec: RunSpec) -> list[Metric.Config]:
    """Settings of the metrics that can be measured while other runs are active."""
    return [config for config in spec.metrics if not is_exclusive(config)]


def settings_of(metrics: Iterable[Metric.Config]) -> list[dict[str, Any]]:
    """Dump settings as plain values."""
    return [config.model_dump(mode="json") for config in metrics]


def failure_of(what: What, place: StudyFolder, variant: str, seed: int) -> Path:
    """The file in which a process records why it failed."""
    failure = {"train": place.failure, "measure": place.later_failure, "measure alone": place.alone_failure}[what]
    return failure(variant, seed)


def weights_key(folder: Path, seed: int) -> str:
    """Hash of the newest checkpoint's record, which holds checksums; empty without a checkpoint."""
    newest = checkpoint.latest(RunFolder(folder).checkpoints(seed))
    return "" if newest is None else hashlib.sha256((newest / checkpoint.STATE).read_bytes()).hexdigest()


def weights_of_all(place: StudyFolder, variants: Iterable[str], seed: int) -> dict[str, str]:
    """Hashes of the weights of other variants' runs with this seed."""
    return {variant: weights_key(place.run(variant, seed), seed) for variant in variants}


def main(arguments: Sequence[str]) -> int:
    """Do the task, record a failure with its cause beside the run's folder, and return the exit status."""
    task = StudyTask.model_validate_json(arguments[0])
    place = StudyFolder(task.study)
    failure = failure_of(task.what, place, task.variant, task.seed)
    failure.unlink(missing_ok=True)
    try:
        {"train": _run, "measure": _measure_missing, "measure alone": _measure_alone}[task.what](task, place)
    except MoeframeError as error:
        cause = str(error)
    except Exception as error:  # whatever failed, the table must say so
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}"
    else:
        return 0
    print(cause, file=sys.stderr)  # noqa: T201  # into the run's log
    write_file(failure, as_json({"cause": cause}))
    return 1


def _run(task: StudyTask, place: StudyFolder) -> None:
    weights_of = None if task.weights_of is None else place.run(task.weights_of, task.seed)
    folder, start = place.run(task.variant, task.seed), time.perf_counter()
    from_start = not folder.exists()
    sources = weights_of_all(place, task.sources, task.seed)
    run(
        place.spec(task.variant),
        overrides=[f"seeds=[{task.seed}]", *task.overrides],
        out=folder,
        shared=SharedWork(place.shared, weights_of),
    )
    write_file(place.sources(task.variant, task.seed), as_json(sources))
    if from_start:  # the time of an interrupted run is unknown
        taken = {"seconds": round(time.perf_counter() - start, 1)}
        write_file(place.seconds(task.variant, task.seed), as_json(taken))


def _measure_missing(task: StudyTask, place: StudyFolder) -> None:
    measure_missing(place.run(task.variant, task.seed), task.metrics)


def _measure_alone(task: StudyTask, place: StudyFolder) -> None:
    folder = place.run(task.variant, task.seed)
    loaded = load(folder, task.seed)
    evaluation = ModelEvaluation(loaded.assembly, loaded.denoiser, folder / f"seed-{task.seed}")
    registry = Registry.installed()
    classes = [registry.get(Metric, settings["type"]) for settings in task.metrics]
    metrics = [
        metric(metric.Config.model_validate(settings)) for metric, settings in zip(classes, task.metrics, strict=True)
    ]
    entries = {metric.config.key: measure(metric, evaluation) for metric in metrics}
    results = combine_seeds(task.variant, loaded.spec.hash(), {}, {task.seed: entries})
    weights = weights_key(folder, task.seed)
    content = {"settings": task.metrics, "weights": weights, "metrics": results.model_dump(mode="json")["metrics"]}
    write_file(place.alone(task.variant, task.seed), as_json(content))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
