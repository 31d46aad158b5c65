"""study.json, refreshed from the runs, and the evidence of the runs on noise levels, slices and learning."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from moeframe.errors import RunFolderError
from moeframe.report.run.plots import BoundByNoise
from moeframe.report.run.seed_folder import Diagnostics
from moeframe.report.study.comparison_table import table_of
from moeframe.report.study.rows import Table
from moeframe.report.study.run_records import RunRecord, RunRecords, study_records
from moeframe.storage.atomic import write_file
from moeframe.storage.study_folder import StudyFolder, read_mapping

BANDS = 4
"""Ranges of log-SNR, of equal width, for which the bound is compared."""


@dataclass(frozen=True)
class SeedEvidence:
    """The diagnostics and learning curve of one finished run."""

    seed: int
    samples_png: str | None
    """The top left square of the grid of its samples, base64."""
    diagnostics: Diagnostics
    validation: list[tuple[int, float]]
    """(step, bits/dim) on validation images during training."""


@dataclass(frozen=True)
class Evidence:
    """A variant's facts in study.json, and the evidence of its finished runs."""

    facts: Mapping[str, Any]
    seeds: list[SeedEvidence]

    @property
    def name(self) -> str:
        """Return the name of the variant."""
        return str(self.facts["name"])

    @property
    def title(self) -> str:
        """Return the title of the variant."""
        return str(self.facts["title"])

    def titled(self, n: int) -> str:
        """Return the title, with the number of seeds if some are missing."""
        planned = len(self.facts["runs"])
        return self.title if n == planned else f"{self.title} ({n} of {planned} seeds)"

    def learning(self, cost_of_call: float = 1.0) -> list[tuple[float, list[float]]]:
        """Return (training cost so far, validation bits/dim of each seed) at the steps that all seeds measured."""
        at: dict[int, list[float]] = {}
        for seed in self.seeds:
            for step, bits in seed.validation:
                at.setdefault(step, []).append(bits)
        complete = [(step, bits) for step, bits in sorted(at.items()) if len(bits) == len(self.seeds)]
        return [(cost_of_call * self._calls(step), bits) for step, bits in complete]

    def learning_of(self, seed: int, cost_of_call: float) -> list[tuple[float, float]]:
        """Return (training cost so far, validation bits/dim) of one seed; empty if the seed is missing."""
        found = (one.validation for one in self.seeds if one.seed == seed)
        return [(cost_of_call * self._calls(step), bits) for step, bits in sorted(next(found, []))]

    def warm_start(self, cost_of_call: float) -> float:
        """Return the cost of the warm start; 0 for a single expert, whose slice is all of the data."""
        return cost_of_call * self._calls(self.facts["warm_start_steps"]) if self.facts["n_experts"] > 1 else 0.0

    def _calls(self, step: int) -> int:
        warm = min(step, self.facts["warm_start_steps"])
        per_step = self.facts["n_experts"] * warm + self.facts["joint_calls"] * (step - warm)
        return int(per_step * self.facts["batch_size"])


def refreshed(folder: Path) -> tuple[dict[str, Any], RunRecords]:
    """Return study.json with the present status and metrics of each run, and the records of the runs.

    study.json is written back, the same bytes for the same runs; a study kept without its runs is left unchanged.
    Raises RunFolderError if study.json lacks a key, or the folder has none of the runs that it records as finished.
    """
    place = StudyFolder(folder)
    record = read_mapping(place.record)
    if missing := [key for key in ("name", "baseline", "seeds", "dataset", "variants") if key not in record]:
        raise RunFolderError(f"{place.record}: missing keys: {', '.join(missing)}; run `moeframe study` again")
    known = (run["status"] for row in record["variants"] for run in row.get("runs", []))
    if "finished" in known and not place.runs.is_dir() and not place.records.exists():
        raise RunFolderError(
            f"{folder}: no runs and no run records found, so the page cannot be made; use the folder with the runs"
        )
    runs = study_records(folder, [_source(row) for row in record["variants"]], record["seeds"])
    for row in record["variants"]:
        row["runs"] = [_run_of(row, seed, runs) for seed in record["seeds"]]
    if place.runs.is_dir() or not place.records.exists():
        write_file(place.record, (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
    return record, runs


def _source(row: Mapping[str, Any]) -> str:
    """The variant whose runs a row shows."""
    return str(row["same_as"] or row["name"])


def _run_of(row: Mapping[str, Any], seed: int, runs: RunRecords) -> dict[str, Any]:
    run = runs.get((_source(row), seed))
    if run is None:
        return {"seed": seed, "status": "to do", "cause": "", "metrics": {}}
    metrics = run.metrics
    if "metrics" in row:  # a run may have metrics that the study no longer requests
        metrics = {key: metrics[key] for key in row["metrics"] if key in metrics}
    return {"seed": seed, "status": run.status, "cause": run.cause, "metrics": metrics}


def evidence_of(record: Mapping[str, Any], runs: RunRecords) -> list[Evidence]:
    """Return the evidence of each variant; one that repeats another shows the runs of that one."""
    return [
        Evidence(
            row,
            [_seed_evidence(runs[_source(row), run["seed"]]) for run in row["runs"] if run["status"] == "finished"],
        )
        for row in record["variants"]
    ]


def _seed_evidence(run: RunRecord) -> SeedEvidence:
    diagnostics = run.checked_diagnostics()
    validation = [] if diagnostics.no_bound else run.validation
    return SeedEvidence(run.seed, run.samples_png, diagnostics, validation)


def by_noise(record: Mapping[str, Any], evidence: Sequence[Evidence]) -> Table:
    """Return the diffusion part of the bound by range of log-SNR, bits/dim, as a table."""
    return _table(record, evidence, lambda seed: _bands(seed.diagnostics.bound_by_log_snr))


def _bands(bound: BoundByNoise | None) -> dict[str, float]:
    """Integrate the density over each range by the trapezoid rule, on a grid that contains the borders."""
    if bound is None:
        return {}
    order = np.argsort(bound.log_snr)
    x, y = np.array(bound.log_snr)[order], np.array(bound.merged)[order]
    found = {}
    for low, high in pairwise(np.linspace(x[0], x[-1], BANDS + 1)):
        grid = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
        found[f"log-SNR {low:.3g} to {high:.3g}"] = float(np.trapezoid(np.interp(grid, x, y), grid))
    return found


def by_slice(record: Mapping[str, Any], evidence: Sequence[Evidence]) -> Table:
    """Return test bits/dim of the same images by slice, as a table.

    The slices are those of the first variant that has some. Empty if they depend on the seed, as clusters do: the
    means would be over different images.
    """
    sliced = (seed.diagnostics for one in evidence for seed in one.seeds if seed.diagnostics.image_slices)
    reference = next(sliced, None)
    if reference is None or any(
        _names(d) == _names(reference) and d.image_slices != reference.image_slices for d in sliced
    ):
        return _table(record, evidence, lambda _: {})
    assert reference.image_slices is not None
    names = _names(reference)

    def bits(seed: SeedEvidence) -> dict[str, float]:
        own = seed.diagnostics.image_bits or []
        if len(own) != len(reference.image_slices or []):
            return {}  # a different number of images
        by: dict[str, list[float]] = {name: [] for name in names}
        for k, value in zip(reference.image_slices or [], own, strict=True):
            by[names[k]].append(value)
        return {f"{name} ({len(of)} images)": statistics.mean(of) for name, of in by.items() if of}

    return _table(record, evidence, bits)


def _names(diagnostics: Diagnostics) -> list[str]:
    return diagnostics.slices.names if diagnostics.slices else []


def _table(
    record: Mapping[str, Any], evidence: Sequence[Evidence], figures: Callable[[SeedEvidence], dict[str, float]]
) -> Table:
    rows = []
    for one in evidence:
        found = {seed.seed: figures(seed) for seed in one.seeds}
        runs = [
            {
                **run,
                "metrics": {
                    name: {"unit": "bits/dim", "better": "lower", "mean": value}
                    for name, value in found.get(run["seed"], {}).items()
                },
            }
            for run in one.facts["runs"]
        ]
        rows.append({**one.facts, "runs": runs})
    costs = {row["name"]: row for row in record["variants"]}
    return table_of({**record, "variants": rows}, costs)
