"""The plan of a study: every run with its status, its cost in calls and FLOPs, and the time that it will take."""

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path

from moeframe.plugin.registry import Registry
from moeframe.report.study.rows import PlannedRun, Standing
from moeframe.storage.study_folder import StudyFolder, read_mapping
from moeframe.studies.cost import predicted_costs
from moeframe.studies.resume import changes_since, expect_own, missing_metrics, missing_timing_metrics
from moeframe.studies.study_file import Study, Variant


def plan(study: Study, folder: Path) -> list[PlannedRun]:
    """List every run with its status and predicted cost; variants with equal specs share their runs.

    The time of a run is the mean of its variant's finished runs. Without any, it is scaled from all finished runs by
    the FLOPs of training and sampling, or by network calls where the FLOPs of some expert are unknown before it runs.
    Raises RunFolderError for the folder of another study.
    """
    place = StudyFolder(folder)
    study = share_runs(study, place)
    if place.record.exists():
        expect_own(study, place)
    taken = {
        variant.name: [
            read_mapping(path)["seconds"] for seed in study.seeds if (path := _finished(place, variant, seed))
        ]
        for variant in study.variants
    }
    costs = predicted_costs(study, Registry.installed())
    in_flops = all(costs[variant.name].flops_per_call for variant in distinct_variants(study))
    work = {name: cost.work((in_flops and cost.flops_per_call) or 1.0) for name, cost in costs.items()}
    rates = [statistics.mean(seconds) / work[name] for name, seconds in taken.items() if seconds and work[name]]
    found = []
    for variant in distinct_variants(study):
        cost = costs[variant.name]
        seconds = statistics.mean(taken[variant.name]) if taken[variant.name] else None
        if seconds is None and rates:
            seconds = statistics.mean(rates) * work[variant.name] or None
        for seed in study.seeds:
            if not study.includes(variant, seed):
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
    """Return the status of a run under the study's present settings, and the reason."""
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


def share_runs(study: Study, place: StudyFolder) -> Study:
    """Let equal variants share the runs of the one that has any, whatever their order in the file."""
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


def distinct_variants(study: Study) -> Iterator[Variant]:
    """Yield the variants with runs of their own."""
    return (variant for variant in study.variants if variant.same_as is None)
