"""Keep what a finished study shows: its page, tables and record, the command, the environment and the time it took.

moeframe study specs/studies/digits.yaml --jobs 2 --out runs/studies/digits
python benchmarks/study_results.py runs/studies/digits     # writes results/studies/digits/
"""

import json
import shutil
import sys
from pathlib import Path

from moeframe.report.study_page import write_study
from moeframe.report.study_tables import Table
from moeframe.study_folder import StudyFolder, read_mapping

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> None:
    table = write_study(folder)
    place, out = StudyFolder(folder), ROOT / "results/studies" / table.name
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(place.tables, out / "tables")
    for path in (place.page, place.record):
        shutil.copy(path, out)
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


def _command(table: Table) -> str:
    """What was carried out of the study's file, which may hold more seeds and variants."""
    seeds = [f"--seed {seed}" for seed in table.seeds] if len(table.seeds) < table.planned_seeds else []
    only = [f"--only {row.name}" for row in table.rows if row.name != table.baseline] if table.not_run else []
    return " ".join([f"moeframe study specs/studies/{table.name}.yaml --jobs 2", *seeds, *only])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
