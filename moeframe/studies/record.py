"""study.json: what a study compares, filled with the results of its runs."""

from pathlib import Path

from moeframe.report.study.page import write_study
from moeframe.report.study.rows import Table
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.study_folder import StudyFolder, read_mapping
from moeframe.studies.cost import all_training_calls, joint_calls, training_calls
from moeframe.studies.plan import distinct_variants, share_runs
from moeframe.studies.resume import changes_since
from moeframe.studies.study_file import Study, Variant


def gather(study: Study, folder: Path) -> Table:
    """Write study.json, tables and page from the finished runs; the same results give the same bytes."""
    place = StudyFolder(folder)
    write_file(place.record, as_json(facts_of_study(share_runs(study, place), place)))
    return write_study(folder)


def facts_of_study(study: Study, place: StudyFolder) -> dict[str, object]:
    """Return what study.json records before results are added.

    A variant that this call leaves out keeps its old record if its settings have changed since it was run.
    """
    record = read_mapping(place.record) if place.record.exists() else {}
    before = {row["name"]: {**row, "runs": []} for row in record.get("variants", [])}
    changed = {
        variant.name
        for variant in distinct_variants(study)
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
            before[variant.name] if variant.name in changed else _facts_of_variant(study, variant)
            for variant in study.variants
        ],
    }


def _facts_of_variant(study: Study, variant: Variant) -> dict[str, object]:
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
