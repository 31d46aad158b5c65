"""The folder of a study: paths, the status of each run, and the lock.

studies/NAME/study.json               the variants, their runs and the status of each
studies/NAME/study.html, tables/      the report
studies/NAME/specs/VARIANT.yaml       the resolved spec of each
studies/NAME/runs/VARIANT/SEED/       a run folder each; beside it SEED.log, where it failed SEED.failure.json, and
                                      SEED.alone.json with timings, measured while nothing else ran
                                          (or SEED.alone.failure.json);
                                      SEED.later.failure.json if a metric added later failed
studies/NAME/shared/                  facts about the data, slices and warm starts that variants have in common
studies/NAME/records.jsonl.xz         the records of finished runs, in place of runs/ in a study kept without them
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from moeframe.errors import RunFolderError
from moeframe.storage.atomic import try_locked

Status = Literal["finished", "failed", "to do"]
RECORD = "study.json"


class StudyFolder:
    """Paths of one study."""

    def __init__(self, path: Path):
        self.path = path
        self.record = path / RECORD
        self.runs = path / "runs"
        self.records = path / "records.jsonl.xz"
        self.shared = path / "shared"
        self.tables = path / "tables"
        self.page = path / "study.html"

    def runs_of(self, variant: str) -> Path:
        """Folder of all runs of a variant."""
        return self.runs / variant

    def run(self, variant: str, seed: int) -> Path:
        """Folder of one run."""
        return self.runs_of(variant) / str(seed)

    def results(self, variant: str, seed: int) -> Path:
        """What it measured; there once it is finished."""
        return self.run(variant, seed) / "results.json"

    def log(self, variant: str, seed: int) -> Path:
        """What it printed."""
        return self.runs_of(variant) / f"{seed}.log"

    def failure(self, variant: str, seed: int) -> Path:
        """Why it failed."""
        return self.runs_of(variant) / f"{seed}.failure.json"

    def alone(self, variant: str, seed: int) -> Path:
        """Times and memory, measured while no other run of the study was running."""
        return self.runs_of(variant) / f"{seed}.alone.json"

    def alone_failure(self, variant: str, seed: int) -> Path:
        """Why that failed."""
        return self.runs_of(variant) / f"{seed}.alone.failure.json"

    def later_failure(self, variant: str, seed: int) -> Path:
        """Why metrics that were added after the run had finished could not be measured."""
        return self.runs_of(variant) / f"{seed}.later.failure.json"

    def sources(self, variant: str, seed: int) -> Path:
        """Which weights of other variants the run was made of."""
        return self.runs_of(variant) / f"{seed}.sources.json"

    def seconds(self, variant: str, seed: int) -> Path:
        """How long the run took, for the plan of the others."""
        return self.runs_of(variant) / f"{seed}.seconds.json"

    def spec(self, variant: str) -> Path:
        """Its spec, of all seeds."""
        return self.path / "specs" / f"{variant}.yaml"

    def status(self, variant: str, seed: int) -> tuple[Status, str]:
        """Status of a run: why it failed, or what could not be measured of a finished one."""
        if self.results(variant, seed).exists():
            return "finished", "; ".join(self._not_measured(variant, seed))
        if self.failure(variant, seed).exists():
            return "failed", str(read_mapping(self.failure(variant, seed)).get("cause", "unknown"))
        return "to do", ""

    def _not_measured(self, variant: str, seed: int) -> Iterator[str]:
        failures = {
            "metrics added later": self.later_failure(variant, seed),
            "times and memory": self.alone_failure(variant, seed),
        }
        for what, path in failures.items():
            if path.exists():
                yield f"{what}: {read_mapping(path).get('cause', 'unknown')}"

    def claimed(self) -> AbstractContextManager[None]:
        """Lock the folder for one process."""
        return try_locked(self.path)


def is_study(folder: Path) -> bool:
    """Whether the folder holds a study."""
    return (folder / RECORD).exists()


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object of the study. Raises RunFolderError where it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); delete it and run the study again") from None
    if not isinstance(value, dict):
        raise RunFolderError(f"{path}: not a JSON object; delete it and run the study again")
    return value
