"""Checkpoints: safetensors and JSON in one folder, written atomically, verified by checksum when read.

    checkpoints/step-00000250/{model,ema,optimizer}.safetensors, state.json

A folder appears under its name only when every file in it is complete. The newest two are kept.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from moeframe.errors import CheckpointError
from moeframe.storage.atomic import storage_errors_at, write_and_flush

FORMAT = 1
KEPT = 2
STATE = "state.json"


@dataclass(frozen=True)
class Snapshot:
    """The state of a training run after `step` steps: groups of named tensors."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint below `folder` and drop the oldest. Raises StorageError; nothing older is lost then."""
    final = folder / f"step-{snapshot.step:08d}"
    partial = folder / f".{final.name}.partial"
    with storage_errors_at(final):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            files = {}
            for group, tensors in snapshot.tensors.items():
                plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                content = safetensors.torch.save(plain)
                write_and_flush(partial / f"{group}.safetensors", content)
                files[group] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            state = {"format": FORMAT, "step": snapshot.step, "files": files}
            write_and_flush(partial / STATE, json.dumps({**state, "sha256": _digest(state)}, indent=1).encode())
            if final.exists():
                shutil.rmtree(final)
            os.rename(partial, final)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint below `folder`."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path) -> Snapshot:
    """Read and verify a checkpoint. Raises CheckpointError naming the file that is truncated or altered."""
    state = _read_state(path / STATE)
    tensors = {
        group: _read_tensors(path / f"{group}.safetensors", expected) for group, expected in state["files"].items()
    }
    return Snapshot(state["step"], tensors)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load named tensors strictly. Raises CheckpointError listing what does not fit."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    if missing or extra or shapes:
        found = [
            f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
            if names
        ]
        raise CheckpointError(
            f"the checkpoint belongs to another model; tensors {'; '.join(found)}; "
            "start over with --fresh, or use the spec that it was trained with"
        )
    model.load_state_dict(tensors)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_bytes())
        claimed = state.pop("sha256")
        intact = claimed == _digest(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _broken(path, "is missing or not readable") from None
    if not intact:
        raise _broken(path, "does not match its checksum: it was altered")
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {state['format']}, this moeframe reads {FORMAT}; use the release that wrote it"
        )
    return dict(state)


def _read_tensors(path: Path, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror}") from None
    if len(content) != expected["bytes"]:
        raise _broken(path, f"is truncated: {len(content)} bytes of {expected['bytes']}")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise _broken(path, "does not match its checksum: some bits changed")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise _broken(path, f"is not a safetensors file:  {error}") from None


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}; delete the folder {path.parent.name} to go on from the checkpoint before it, "
        "or restart with --fresh"
    )
