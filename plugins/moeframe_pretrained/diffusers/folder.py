"""A folder that diffusers wrote: its network's and its scheduler's settings and its tensors, read without running code.

Two layouts: a pipeline's, with `unet/` and `scheduler/`, and the flat one with config.json and scheduler_config.json.
Files are opened here and not by diffusers' from_pretrained, so nothing can be fetched and nothing is dropped silently.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from moeframe.errors import CheckpointError, DataError
from moeframe_pretrained.checkpoint_files import read_settings

SAFE, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
_LEGACY = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class DiffusersFolder:
    """The files of a checkpoint."""

    network: Path
    """config.json of the network."""
    scheduler: Path
    """scheduler_config.json."""
    weights: Path


def find_parts(folder: Path) -> DiffusersFolder:
    """Locate the files. Raises DataError if the folder does not have them."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; 'path' names a folder that diffusers' save_pretrained wrote")
    _refuse_custom_parts(folder / "model_index.json")
    pipeline = (folder / "unet").is_dir()
    own, scheduler = (folder / "unet", folder / "scheduler") if pipeline else (folder, folder)
    for needed in (own / "config.json", scheduler / "scheduler_config.json"):
        if not needed.is_file():
            raise DataError(
                f"{folder}: holds no {needed.relative_to(folder)}; a diffusers checkpoint has unet/config.json and "
                "scheduler/scheduler_config.json, or config.json and scheduler_config.json side by side"
            )
    for name in (SAFE, PICKLED):
        if (own / name).is_file():
            return DiffusersFolder(own / "config.json", scheduler / "scheduler_config.json", own / name)
    found = ", ".join(sorted(path.name for path in own.iterdir())[:8])
    raise DataError(
        f"{own}: holds no {SAFE} or {PICKLED}, only {found}; save it again in one piece and without a variant: "
        "unet.save_pretrained(folder, max_shard_size='100GB')"
    )


def _refuse_custom_parts(index: Path) -> None:
    """A pipeline may name a Python file of its own for the network; that file is never run."""
    if not index.is_file():
        return
    named = read_settings(index).get("unet", ["diffusers", "UNet2DModel"])
    if named != ["diffusers", "UNet2DModel"]:
        raise CheckpointError(
            f"{index}: its unet is {named}, not ['diffusers', 'UNet2DModel']; code that comes with a checkpoint is "
            "not run, and only UNet2DModel is read"
        )


def with_names_of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Older diffusers called the parts of its attention query, key, value and proj_attn."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    match = _LEGACY.fullmatch(name)
    return f"{match[1]}.{_TODAY[match[2]]}.{match[3]}" if match else name
