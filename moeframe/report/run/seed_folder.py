"""Reading events.jsonl and diagnostics.json of one seed."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moeframe.errors import RunFolderError
from moeframe.report.run import plots
from moeframe.storage.results import read_json

EVENTS = "events.jsonl"


class Entry(BaseModel):
    """A record whose unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Kind = TypeVar("Kind", bound=BaseModel)


class TermEvent(Entry):
    """One term of the objective at one step."""

    value: float
    unit: str
    weight: float


class Event(Entry):
    """One line of events.jsonl: a training batch, a validation, or another kind without these fields."""

    kind: str
    step: int = 0
    phase: str = ""
    objective: float | None = None
    terms: dict[str, TermEvent] = {}
    experts: list[float | None] = []
    bits_per_dim: float | None = None


class Slices(Entry):
    """The slices by name, with their sizes in both splits."""

    names: list[str]
    train: list[int]
    test: list[int]
    cautions: list[str] = []


class Diagnostics(Entry):
    """diagnostics.json; every part is optional."""

    gate_weights: plots.GateWeightsByNoise | None = None
    expert_usage: list[float] | None = None
    switches: list[float] = []
    slices: Slices | None = None
    expert_slice_bits: plots.SliceBits | None = None
    router_accuracy: plots.RouterAccuracy | None = None
    bound_by_log_snr: plots.BoundByNoise | None = None
    no_bound: str | None = None
    """Why this model has no bound on its likelihood; then no bound is reported."""
    not_finite: dict[str, int] = {}
    """Number of images with NaN or infinite pixels, by the name of the picture."""
    reconstruction_log_snr: float | None = None
    trajectory_log_snr: list[float] | None = None
    image_bits: list[float] | None = None
    """Bound of each of some test images, bits/dim; every run of a seed uses the same images and noise."""
    image_slices: list[int] | None = None
    """The slice of each of those images."""


def read_text(path: Path) -> str:
    """Return the text of a file of the run. Raises RunFolderError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}; finish the run with `moeframe run`") from error


def read_diagnostics(path: Path) -> Diagnostics:
    """Return diagnostics.json, or an empty record without it."""
    return checked(Diagnostics, read_json(path), str(path)) if path.exists() else Diagnostics()


def read_events(path: Path) -> list[Event]:
    """Return the events by step; a step that a resumed run repeated counts once, with its last values."""
    if not path.exists():
        return []
    events: dict[tuple[str, str, int], Event] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            data = json.loads(line)
        except ValueError as error:
            raise RunFolderError(
                f"{path}:{number}: invalid JSON ({error}); delete the line and report again"
            ) from error
        event = checked(Event, data, f"{path}:{number}")
        events[event.kind, event.phase, event.step] = event
    return sorted(events.values(), key=lambda event: event.step)


def checked(model: type[Kind], data: object, place: str) -> Kind:
    """Validate a record. Raises RunFolderError that names the first invalid field."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(f"{place}: {path}: {problem['msg']}; run again with --fresh") from error
