"""What `--json` prints: one document per command, plain values only, its keys stated here and tested."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moeframe.errors import MoeframeError, SpecError

if TYPE_CHECKING:
    from moeframe.report.run.trade_off import TradeOff
    from moeframe.report.study.rows import PlannedRun
    from moeframe.runs.doctor import Finding
    from moeframe.spec.schema import RunSpec
    from moeframe.storage.results import Results
    from moeframe.studies.study_file import Study

Document = dict[str, Any]


def run_document(results: "Results", folder: Path, warnings: Sequence[str], sweep: "TradeOff | None") -> Document:
    """Of `run` and `merge`.

    `folder` and `report` (paths), `warnings` (sentences), `results` (results.json), `sweep` (sweep.json, null without
    --sweep).
    """
    return {
        "folder": str(folder),
        "report": str(folder / "report.html"),
        "warnings": list(warnings),
        "results": results.model_dump(mode="json"),
        "sweep": None if sweep is None else sweep.model_dump(mode="json"),
    }


def valid_spec_document(file: Path, spec: "RunSpec", *, resolved: bool) -> Document:
    """Of `validate` for a spec.

    `file`, `kind` ("spec"), `valid` (true), `problems` ([]), `name`, `experts` (number), `seeds`, `variants` (null),
    `resolved` (the spec with every default; null without --resolved).
    """
    return {
        **_checked(file, "spec", []),
        "name": spec.name,
        "experts": spec.n_experts,
        "seeds": list(spec.seeds),
        "variants": None,
        "resolved": spec.dump() if resolved else None,
    }


def valid_study_document(file: Path, study: "Study") -> Document:
    """Of `validate` for a study file: as for a spec, with `kind` "study", `experts` null, `variants` their names."""
    return {
        **_checked(file, "study", []),
        "name": study.name,
        "experts": None,
        "seeds": list(study.seeds),
        "variants": [variant.name for variant in study.variants],
        "resolved": None,
    }


def invalid_document(file: Path, error: MoeframeError) -> Document:
    """Of `validate` for a file with errors.

    `file`, `kind` (null), `valid` (false), and `problems`: each with `place` (file:line:column), `path` (dotted) and
    `message`; `place` and `path` are empty where the file could not be read.
    """
    found = error.problems if isinstance(error, SpecError) else ()
    problems = [{"place": one.place, "path": one.dotted_path, "message": one.message} for one in found]
    return _checked(file, None, problems or [{"place": "", "path": "", "message": str(error)}])


def _checked(file: Path, kind: str | None, problems: list[dict[str, str]]) -> Document:
    return {"file": str(file), "kind": kind, "valid": not problems, "problems": problems}


def doctor_document(findings: Sequence["Finding"]) -> Document:
    """Of `doctor`.

    `complete` (whether nothing that is needed is missing) and `findings`: each with `what`, `ok`, `needed` (by the
    spec) and `detail` (what was found, or what to do).
    """
    return {
        "complete": all(finding.ok or not finding.needed for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def plan_document(name: str, folder: Path, runs: Sequence["PlannedRun"]) -> Document:
    """Of `study --plan`.

    `name`, `folder` and `runs`: each with `variant`, `seed`, `status`, `cause`, `training_calls`, `training_flops`,
    `sampling_calls` and `seconds` (null where not known beforehand).
    """
    return {"name": name, "folder": str(folder), "runs": [run.model_dump(mode="json") for run in runs]}
