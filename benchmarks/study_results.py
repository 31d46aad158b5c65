"""Keep a study without its runs: page, tables, one file of what each run measured, the command, environment and time.

moeframe study specs/studies/digits.yaml --jobs 2 --out runs/studies/digits
python benchmarks/study_results.py runs/studies/digits     # writes results/studies/digits/

`moeframe report results/studies/digits` then writes the same page and tables from records.jsonl.xz, byte for byte.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from moeframe.interfaces.metric import Metric
from moeframe.plugin.registry import Registry
from moeframe.report.study.page import write_study
from moeframe.report.study.record import refreshed
from moeframe.report.study.rows import Table
from moeframe.report.study.run_records import RunRecord, write_records
from moeframe.storage.study_folder import StudyFolder, read_mapping

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> None:
    place = StudyFolder(folder)
    if not place.runs.is_dir():
        raise SystemExit(f"{folder}: has no runs/; name the folder that `moeframe study` wrote")
    write_study(folder)
    record, runs = refreshed(folder)
    out = StudyFolder(ROOT / "results/studies" / str(record["name"]))
    if folder.resolve() == out.path.resolve():
        raise SystemExit(f"{folder}: is the folder to write; copy it elsewhere first")
    shutil.rmtree(out.path, ignore_errors=True)
    out.path.mkdir(parents=True)
    kept = list(_kept(place, list(runs.values())))
    write_records(out.records, kept)
    facts = {**record, "variants": [{k: v for k, v in row.items() if k != "runs"} for row in record["variants"]]}
    out.record.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    made = _made(place, write_study(out.path))
    (out.path / "made.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{out.path}: {sum(path.stat().st_size for path in out.path.rglob('*') if path.is_file()) / 1e6:.1f} MB")


def _kept(place: StudyFolder, runs: list[RunRecord]) -> Iterator[RunRecord]:
    """The runs with their specs and the roles of their metrics, and the samples of the one seed that the page shows."""
    begun = {run.variant for run in runs if run.status == "finished"}
    finished = {(run.variant, run.seed) for run in runs if run.status == "finished"}
    seeds = sorted({run.seed for run in runs})
    pictured = next((seed for seed in seeds if {(variant, seed) for variant in begun} <= finished), None)
    registry = Registry.installed()
    for run in runs:
        path = place.run(run.variant, run.seed) / "spec.yaml"
        spec = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        alone = place.alone(run.variant, run.seed)
        settings = [*spec.get("metrics", []), *(read_mapping(alone)["settings"] if alone.exists() else [])]
        types = {each.get("label") or each["type"]: each["type"] for each in settings}
        yield run.model_copy(
            update={
                "spec": spec,
                "metrics": {key: _with_role(value, types.get(key), registry) for key, value in run.metrics.items()},
                "samples_png": run.samples_png if run.seed == pictured else None,
            }
        )


def _with_role(entry: Mapping[str, Any], metric: str | None, registry: Registry) -> dict[str, Any]:
    """The entry; one measured before metrics had a role gets that of the installed metric."""
    if "role" in entry or "mean" not in entry or metric not in registry.names(Metric.KIND):
        return dict(entry)
    return {**entry, "role": registry.get(Metric, metric).ROLE}


def _made(place: StudyFolder, table: Table) -> dict[str, Any]:
    seconds = [read_mapping(path)["seconds"] for path in sorted(place.runs.rglob("*.seconds.json"))]
    environments = [read_mapping(path) for path in sorted(place.runs.rglob("environment.json"))]
    return {
        "command": _command(table),
        "runs": sum(row.finished for row in table.rows),
        "hours_of_one_core": round(sum(seconds) / 3600, 1),
        "runs_with_a_known_time": len(seconds),
        "environment": [dict(items) for items in dict.fromkeys(tuple(each.items()) for each in environments)],
    }


def _command(table: Table) -> str:
    """What was carried out of the study's file, which may hold more seeds and variants."""
    seeds = [f"--run-seed {seed}" for seed in table.seeds] if len(table.seeds) < table.planned_seeds else []
    only = [f"--only {row.name}" for row in table.rows if row.name != table.baseline] if table.not_run else []
    return " ".join([f"moeframe study specs/studies/{table.name}.yaml --jobs 2", *seeds, *only])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
