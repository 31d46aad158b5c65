"""results.json: every metric of a run over its seeds, with its interval and how it was computed."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeframe.errors import NonFiniteError, RunFolderError
from moeframe.interfaces.metric import Better, Role
from moeframe.stats.intervals import mean, summarise
from moeframe.storage.atomic import write_file

SeedMetrics: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The parsed metrics.json of one seed: metric name -> measurement, or -> {"unavailable": text}."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _Measured(_Record):
    """One entry of a seed's metrics.json."""

    value: float
    unit: str
    better: Better
    role: Role = "other"
    n: int
    how: dict[str, Any]
    interval: tuple[float, float] | None = None
    parts: dict[str, float] = Field(default_factory=dict)


class PartResult(_Record):
    """A named component of a metric."""

    mean: float
    """Over the seeds that have it."""
    per_seed: list[float | None]
    """In the order of the file's `seeds`; null where the seed lacks it."""


class MetricResult(_Record):
    """A metric over the seeds that could measure it."""

    unit: str
    """Figures with different units are not compared."""
    better: Better
    """Which direction is an improvement."""
    role: Role = "other"
    """What the figure is about; a report leads with one of likelihood and one of quality."""
    mean: float
    """Over the seeds that measured it."""
    sd: float | None
    """Sample standard deviation over seeds; null with one seed."""
    interval: tuple[float, float] | None
    """95 % interval of the mean over seeds, or within the run if there is one seed; null if there is none."""
    interval_method: str
    """How the interval was computed, or why there is none."""
    n_seeds: int
    """Seeds that measured it."""
    per_seed: list[float | None]
    """In the order of the file's `seeds`; null where the seed could not measure it (`how` says why)."""
    n: int
    """Sample size within one seed; the smallest where seeds differ."""
    how: dict[str, Any]
    """Everything needed to compute the figure again: method, samples, features, sampler, device."""
    parts: dict[str, PartResult]
    """Named components of the figure, or figures beside it."""

    @property
    def caution(self) -> str:
        """Caution for a reader who compares this value; empty if there is none."""
        return str(self.how.get("caution", ""))


class UnavailableResult(_Record):
    """A metric that no seed could measure."""

    unavailable: str
    """Why, and what to do."""


class Results(_Record):
    """The content of results.json."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: str
    """The spec's name."""
    spec_hash: str
    """First 16 hexadecimal digits of the SHA-256 of the resolved spec, without the settings of the machine."""
    environment: dict[str, Any]
    """Versions, device and hash of the source, as in environment.json."""
    seeds: list[int]
    """Training seeds, in the order of every `per_seed`."""
    metrics: dict[str, MetricResult | UnavailableResult]
    """Name of the metric, or its `label`, to its figures."""


def combine_seeds(
    name: str, spec_hash: str, environment: Mapping[str, Any], per_seed: Mapping[int, SeedMetrics]
) -> Results:
    """Summarise the seeds' metrics.json. Raises NonFiniteError for a NaN, RunFolderError for a damaged entry."""
    assert per_seed, "a run has at least one seed"
    names = dict.fromkeys(metric for metrics in per_seed.values() for metric in metrics)
    return Results(
        name=name,
        spec_hash=spec_hash,
        environment=dict(environment),
        seeds=list(per_seed),
        metrics={
            metric: _combine(metric, {seed: metrics.get(metric) for seed, metrics in per_seed.items()})
            for metric in names
        },
    )


def _combine(metric: str, per_seed: Mapping[int, Mapping[str, Any] | None]) -> MetricResult | UnavailableResult:
    """One metric over all seeds."""
    measured: dict[int, _Measured] = {}
    reasons: dict[str, str] = {}
    for seed, entry in per_seed.items():
        if entry is None:
            reasons[f"seed {seed}"] = "not measured; run the same command again to measure it"
        elif "unavailable" in entry:
            reasons[f"seed {seed}"] = str(entry["unavailable"])
        else:
            measured[seed] = _parse(metric, seed, entry)
    if not measured:
        texts = dict.fromkeys(reasons.values())
        same = len(texts) == 1
        return UnavailableResult(unavailable="; ".join(texts if same else (f"{k}: {v}" for k, v in reasons.items())))

    units = {(one.unit, one.better) for one in measured.values()}
    if len(units) > 1:
        raise RunFolderError(
            f"metric {metric}: seeds differ in unit or direction ({sorted(units)}): they were measured by different"
            " versions; run again with --fresh"
        )
    first = next(iter(measured.values()))
    summary = summarise([one.value for one in measured.values()])
    interval, method = summary.interval, summary.method
    if summary.n == 1 and first.interval is not None:
        interval = first.interval
        method = f"{first.how.get('interval_method', '95 % interval')} within one run"
    how = _combine_how({f"seed {seed}": one.how for seed, one in measured.items()})
    return MetricResult(
        unit=first.unit,
        better=first.better,
        role=first.role,
        mean=summary.mean,
        sd=summary.sd,
        interval=interval,
        interval_method=method,
        n_seeds=summary.n,
        per_seed=[measured[seed].value if seed in measured else None for seed in per_seed],
        n=min(one.n for one in measured.values()),
        how=how | ({"unavailable": reasons} if reasons else {}),
        parts={
            part: _combine_part([measured[seed].parts.get(part) if seed in measured else None for seed in per_seed])
            for part in dict.fromkeys(part for one in measured.values() for part in one.parts)
        },
    )


def _parse(metric: str, seed: int, entry: Mapping[str, Any]) -> _Measured:
    require_finite(entry, f"metric {metric}, seed {seed}")
    try:
        return _Measured.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(
            f"metrics.json of seed {seed}: {metric}.{place}: {problem['msg']}; delete the file and run again"
        ) from error


def _combine_how(hows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each key once where the seeds agree, else its value per seed."""
    combined: dict[str, Any] = {}
    for key in dict.fromkeys(key for how in hows.values() for key in how):
        values = {seed: how.get(key) for seed, how in hows.items()}
        first = next(iter(values.values()))
        combined[key] = first if all(value == first for value in values.values()) else values
    return combined


def _combine_part(values: Sequence[float | None]) -> PartResult:
    return PartResult(mean=mean([value for value in values if value is not None]), per_seed=list(values))


def require_finite(value: object, place: str) -> None:
    """Raise NonFiniteError naming the first NaN or infinity inside a JSON value."""
    if isinstance(value, float) and not math.isfinite(value):
        raise NonFiniteError(
            f"{place} is {value}: not a finite number, so it is not reported; look at seed-N/events.jsonl"
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            require_finite(inner, f"{place}: {key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            require_finite(inner, f"{place}[{i}]")


def read_metrics(path: Path) -> SeedMetrics:
    """The parsed metrics.json of one seed. Raises RunFolderError when it is damaged."""
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not all(isinstance(entry, dict) for entry in metrics.values()):
        raise RunFolderError(f"{path} does not hold a mapping of measurements; delete it and run again")
    return metrics


def write_results(path: Path, results: Results) -> None:
    """Write results.json atomically. Raises NonFiniteError for a NaN in `how`, StorageError when it cannot write."""
    content = results.model_dump(mode="python")
    require_finite(content, path.name)
    write_file(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_results(path: Path) -> Results:
    """Read results.json. Raises RunFolderError when it is missing or of another schema."""
    try:
        return Results.model_validate(read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(
            f"{path}: {place}: {problem['msg']}: not a results.json of schema version 1; run again with --fresh"
        ) from error


def read_json(path: Path) -> Any:
    """The parsed file. Raises RunFolderError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}; finish the run with `moeframe run`") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON ({error}); delete it and run again") from error
