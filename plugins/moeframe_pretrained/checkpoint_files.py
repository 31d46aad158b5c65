"""Files of a checkpoint: settings and named tensors, read without running code and put into a network that they fit."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from moeframe.errors import CheckpointError


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON mapping. Raises CheckpointError."""
    try:
        settings = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: is not JSON; fetch the checkpoint again") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: is not a JSON mapping; fetch the checkpoint again")
    return settings


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, or of one that torch pickled. Raises CheckpointError."""
    try:
        content = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check its permissions") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is truncated or not a safetensors file ({error}); fetch it again") from None
    bad = sorted(name for name, tensor in content.items() if tensor.is_floating_point() and not tensor.isfinite().all())
    if bad:
        raise CheckpointError(f"{path}: tensors with infinite or NaN values: {listed(bad)}; fetch it again")
    return content


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Read with weights_only: torch accepts tensors and plain values and refuses anything that runs code."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: is damaged, or holds more than tensors and reading it would run code; "
            "fetch it again, as safetensors where there is a choice"
        ) from None
    except Exception as error:  # torch raises almost anything on a damaged file
        raise CheckpointError(f"{path}: is truncated or damaged ({_first_line(error)}); fetch it again") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: is not a mapping from names to tensors; name a file that holds a network's weights alone"
        )
    return content


def load_exactly(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, fix: str) -> None:
    """Load the tensors into the network; half precision is converted to the network's dtype.

    Raises CheckpointError listing those that are missing, unexpected or of another shape, and what to do.
    """
    own = network.state_dict()
    shapes = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    groups = (
        ("missing", sorted(own.keys() - tensors.keys())),
        ("unexpected", sorted(tensors.keys() - own.keys())),
        ("of another shape", [f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}" for name in shapes]),
    )
    wrong = [f"{what}: {listed(names)}" for what, names in groups if names]
    if wrong:
        raise CheckpointError(f"{path}: does not fit the network; tensors {'; '.join(wrong)}; {fix}")
    network.load_state_dict(tensors)


def listed(names: list[str]) -> str:
    """The first names, and the number of the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
