"""What each run of a study measured: read from the run folders or, where only records are kept, from one file.

A kept study holds `records.jsonl.xz` in place of `runs/`: JSON lines, compressed, one run each, with the fields of
`RunRecord`. The report of a kept study equals the report of the runs byte for byte.
"""

import base64
import io
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from moeframe.errors import RunFolderError
from moeframe.report.run.seed_folder import EVENTS, Diagnostics, checked, read_events
from moeframe.storage.atomic import write_file
from moeframe.storage.results import read_json
from moeframe.storage.study_folder import StudyFolder, read_mapping


class RunRecord(BaseModel):
    """One run that finished or failed, and everything that the study's report reads of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    seed: int
    status: Literal["finished", "failed"]
    cause: str = ""
    """Why it failed, or which metrics of a finished run could not be measured."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Those of results.json, and those measured while no other run was under way."""
    diagnostics: dict[str, Any] = Field(default_factory=dict)
    """diagnostics.json as it was written."""
    validation: list[tuple[int, float]] = Field(default_factory=list)
    """(step, bits/dim) on validation images while training, by step."""
    samples_png: str | None = None
    """The top left square of the grid of its samples, base64."""
    environment: dict[str, Any] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)
    """The resolved spec; filled only in a kept study, for a reader who wants to know what was run."""
    source: str = Field(default="", exclude=True)
    """The file that holds the diagnostics, for error messages."""

    def checked_diagnostics(self) -> Diagnostics:
        """The diagnostics. Raises RunFolderError naming the file and the field that is malformed."""
        return checked(Diagnostics, self.diagnostics, self.source)


RunRecords: TypeAlias = Mapping[tuple[str, int], RunRecord]
"""By variant and seed; a run that has not ended has none."""


def study_records(folder: Path, variants: Sequence[str], seeds: Sequence[int]) -> RunRecords:
    """The ended runs of these variants and seeds: of runs/ where it exists, else of records.jsonl.xz, else none.

    Raises RunFolderError for a damaged file.
    """
    place = StudyFolder(folder)
    if place.runs.is_dir():
        found = (_of_folder(place, variant, seed) for variant in dict.fromkeys(variants) for seed in seeds)
        return {(run.variant, run.seed): run for run in found if run is not None}
    if place.records.exists():
        wanted = {(variant, seed) for variant in variants for seed in seeds}
        return {(run.variant, run.seed): run for run in _of_lines(place.records) if (run.variant, run.seed) in wanted}
    return {}


def write_records(path: Path, records: Sequence[RunRecord]) -> None:
    """Write records.jsonl.xz; equal records give equal bytes. Raises StorageError when it cannot write."""
    lines = [
        json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for record in records
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    write_file(path, lzma.compress(content))


def _of_folder(place: StudyFolder, variant: str, seed: int) -> RunRecord | None:
    status, cause = place.status(variant, seed)
    if status == "to do":
        return None
    run = place.run(variant, seed)
    environment = run / "environment.json"
    facts: dict[str, Any] = {"variant": variant, "seed": seed, "status": status, "cause": cause}
    facts["environment"] = read_mapping(environment) if environment.exists() else {}
    if status == "failed":
        return RunRecord(**facts)
    metrics = dict(read_mapping(place.results(variant, seed))["metrics"])
    if place.alone(variant, seed).exists():
        metrics |= read_mapping(place.alone(variant, seed))["metrics"]
    own = run / f"seed-{seed}"
    diagnostics, samples = own / "diagnostics.json", own / "samples.png"
    bounds = [(event.step, event.bits_per_dim) for event in read_events(own / EVENTS)]
    return RunRecord(
        **facts,
        metrics=metrics,
        diagnostics=read_json(diagnostics) if diagnostics.exists() else {},
        validation=[(step, bits) for step, bits in bounds if bits is not None],
        samples_png=_square(samples) if samples.exists() else None,
        source=str(diagnostics),
    )


def _square(path: Path) -> str:
    """As many columns of a grid as it has rows: a study shows a picture of every variant, side by side."""
    from PIL import Image

    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as grid:
        if grid.width != grid.height:
            side, buffer = min(grid.size), io.BytesIO()
            grid.crop((0, 0, side, side)).save(buffer, format="PNG", optimize=True)
            content = buffer.getvalue()
    return base64.b64encode(content).decode()


def _of_lines(path: Path) -> Iterator[RunRecord]:
    try:
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); download the file again") from None
    for number, line in enumerate(lines, 1):
        place = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise RunFolderError(f"{place}: not JSON ({error}); download the file again") from None
        yield checked(RunRecord, fields, place).model_copy(update={"source": f"{place}: diagnostics"})
