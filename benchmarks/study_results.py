"""Keep a study without its weights: page, tables, what each run measured, the command, the environment and the time.

moeframe study specs/studies/digits.yaml --jobs 2 --out runs/studies/digits
python benchmarks/study_results.py runs/studies/digits     # writes results/studies/digits/

What is kept is a study's folder: `moeframe report results/studies/digits` gives the same page, and `moeframe study
... --out results/studies/digits --run-seed 3` goes on with another seed.
"""

import json
import shutil
import sys
from pathlib import Path

from moeframe.report.run.seed_folder import EVENTS
from moeframe.report.study.page import write_study
from moeframe.report.study.rows import Table
from moeframe.storage.study_folder import StudyFolder, read_mapping

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> None:
    table = write_study(folder)
    place, out = StudyFolder(folder), ROOT / "results/studies" / table.name
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(place.tables, out / "tables")
    for path in (place.page, place.record):
        shutil.copy(path, out)
    begun = [row for row in table.rows if row.finished]
    pictured = next((s for s in table.seeds if all(place.results(row.name, s).exists() for row in begun)), None)
    for row in table.rows:
        for seed in table.seeds:
            _keep_run(place, StudyFolder(out), row.name, seed, pictures=seed == pictured)
    seconds = [read_mapping(path)["seconds"] for path in sorted(folder.rglob("*.seconds.json"))]
    environments = [json.loads(path.read_text()) for path in sorted(folder.rglob("environment.json"))]
    made = {
        "command": _command(table),
        "runs": sum(row.finished for row in table.rows),
        "hours_of_one_core": round(sum(seconds) / 3600, 1),
        "runs_with_a_known_time": len(seconds),
        "environment": [dict(items) for items in dict.fromkeys(tuple(each.items()) for each in environments)],
    }
    (out / "made.json").write_text(json.dumps(made, indent=1) + "\n")
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.1f} MB")


def _keep_run(place: StudyFolder, out: StudyFolder, variant: str, seed: int, *, pictures: bool) -> None:
    """What the report reads of a run, and what tells how it was made; the samples of one seed."""
    failures = (StudyFolder.failure, StudyFolder.later_failure, StudyFolder.alone_failure)
    for file in (*failures, StudyFolder.alone, StudyFolder.sources):
        _copy(file(place, variant, seed), file(out, variant, seed))
    _copy(place.seconds(variant, seed), out.seconds(variant, seed))
    run, kept, own = place.run(variant, seed), out.run(variant, seed), f"seed-{seed}"
    names = ["results.json", "spec.yaml", "environment.json", f"{own}/diagnostics.json"]
    for name in [*names, *([f"{own}/samples.png"] if pictures else [])]:
        _copy(run / name, kept / name)
    events = run / own / EVENTS
    if events.exists():
        lines = [line for line in events.read_text().splitlines(keepends=True) if '"kind": "validation"' in line]
        (kept / own / EVENTS).write_text("".join(lines))


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _command(table: Table) -> str:
    """What was carried out of the study's file, which may hold more seeds and variants."""
    seeds = [f"--run-seed {seed}" for seed in table.seeds] if len(table.seeds) < table.planned_seeds else []
    only = [f"--only {row.name}" for row in table.rows if row.name != table.baseline] if table.not_run else []
    return " ".join([f"moeframe study specs/studies/{table.name}.yaml --jobs 2", *seeds, *only])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
