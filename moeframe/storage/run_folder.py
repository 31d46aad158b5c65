"""The folder of a run: its files, its lock, and which specs may resume it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from moeframe.errors import RunFolderError
from moeframe.spec.renamed_keys import rename_keys
from moeframe.spec.schema import MACHINE_SETTINGS, RunSpec
from moeframe.storage.atomic import LOCK, storage_errors_at, try_locked, write_file

SPEC = "spec.yaml"
CARD = "card.json"
LEAKS = "duplicates.png"
MEASURING = ("metrics", "evaluation", "sampler")
"""Sections that say how a model is measured, not how it is trained."""
SWEEP = ("sweep.json", "sweep.svg")
_SEED_FOLDER = re.compile(r"seed-(0|[1-9][0-9]*)")
_OWN_FILES = (SPEC, "environment.json", CARD, LEAKS, "results.json", "report.html", *SWEEP)


class RunFolder:
    """Paths of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.spec = path / SPEC
        self.environment = path / "environment.json"
        self.card = path / CARD
        self.results = path / "results.json"

    def seed(self, seed: int) -> Path:
        """Folder of one seed."""
        return self.path / f"seed-{seed}"

    def checkpoints(self, seed: int) -> Path:
        """Folder of one seed's checkpoints."""
        return self.seed(seed) / "checkpoints"

    def metrics(self, seed: int) -> Path:
        """One seed's metrics; present when its evaluation is complete."""
        return self.seed(seed) / "metrics.json"

    def seeds(self) -> list[int]:
        """Seeds that have a folder."""
        found = (_SEED_FOLDER.fullmatch(path.name) for path in self.path.iterdir() if path.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def claimed(self) -> AbstractContextManager[None]:
        """Lock the folder for one process."""
        return try_locked(self.path)

    def check_resumable(self, spec: RunSpec, *, fresh: bool) -> None:
        """Take the folder for `spec`: new, or the same run to resume. Raises RunFolderError for anything else."""
        if not self.spec.exists():
            others = sorted(path.name for path in self.path.iterdir() if path.name != LOCK)
            if others:
                (self.path / LOCK).unlink()  # leave a folder that is not ours unchanged
                raise RunFolderError(
                    f"{self.path}: holds {', '.join(others[:5])} but no run; choose an empty folder with --out"
                )
        elif fresh:
            self._clear()
        else:
            changes = spec_changes(self.read_spec(), spec.dump())
            measuring = all(change.startswith(MEASURING) for change in changes)
            # Without a seed nothing has started, as after a mistake in the spec. How to measure may change until then.
            done = any(self.metrics(seed).exists() for seed in self.seeds()) if measuring else self.seeds()
            if changes and done:
                instead = "measure the trained model again with `moeframe evaluate`, " if measuring else ""
                raise RunFolderError(
                    f"{self.path}: belongs to another spec ({'; '.join(changes[:6])}); {instead}"
                    "choose another folder with --out, or --fresh to delete what is there and start over"
                )
        if not (self.spec.exists() and all(self.metrics(seed).exists() for seed in spec.seeds)):
            self.write_spec(spec)

    def write_spec(self, spec: RunSpec) -> None:
        """Record the resolved spec."""
        write_file(self.spec, yaml.safe_dump(spec.dump(), sort_keys=False, allow_unicode=True).encode())

    def read_spec(self) -> dict[str, Any]:
        """The resolved spec as plain data. Raises RunFolderError if this is not a run folder."""
        try:
            data = yaml.safe_load(self.spec.read_text(encoding="utf-8"))
        except OSError:
            raise RunFolderError(
                f"{self.path}: not a run folder ({SPEC} not found); name a folder that `moeframe run` wrote"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise RunFolderError(f"{self.spec}: is damaged; run again with --fresh") from None
        if not isinstance(data, dict):
            raise RunFolderError(f"{self.spec}: is damaged; run again with --fresh")
        for _ in rename_keys(data):  # a run of an older version
            pass
        return data

    def forget_sweep(self) -> None:
        """Remove what was measured of other places of the switch: it belongs to the settings of that time."""
        with storage_errors_at(self.path):
            for name in SWEEP:
                (self.path / name).unlink(missing_ok=True)

    def _clear(self) -> None:
        with storage_errors_at(self.path):
            for name in _OWN_FILES:
                (self.path / name).unlink(missing_ok=True)
            for seed in self.seeds():
                shutil.rmtree(self.seed(seed))


class EventLog:
    """events.jsonl of one seed: what was logged after the checkpoint that a run resumes from is logged again."""

    def __init__(self, path: Path, step: int):
        self.path = path
        with storage_errors_at(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in self._lines() if line["step"] <= step]
        write_file(path, "".join(_encode(line) for line in kept).encode())

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for text in self.path.read_bytes().splitlines():
            try:
                event = json.loads(text)
            except ValueError:
                return  # the process died while it wrote this line
            if not (isinstance(event, dict) and "step" in event):
                return
            yield event

    def write(self, kind: str, facts: dict[str, Any]) -> None:
        """Append one line."""
        with storage_errors_at(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_encode({"kind": kind, **facts}))


def _encode(event: dict[str, Any]) -> str:
    return json.dumps(event, allow_nan=False) + "\n"


def spec_changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two resolved specs differ, apart from the settings of the machine."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if (path, key) not in MACHINE_SETTINGS]
        return [
            change for key in keys for change in spec_changes(old.get(key), new.get(key), f"{path}.{key}".strip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            change for i, pair in enumerate(zip(old, new, strict=True)) for change in spec_changes(*pair, f"{path}.{i}")
        ]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} now"]
