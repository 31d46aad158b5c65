"""One expert on disk: config.json and model.safetensors, read on any machine without the original run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor, nn

from moeframe.errors import CheckpointError, DataError, InputError, PluginError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.trunk import AdapterExpert
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.registry import Registry
from moeframe.storage.atomic import write_file
from moeframe_pretrained.checkpoint_files import load_exactly, read_settings, read_tensors
from moeframe_pretrained.pretrained import PretrainedExpert

SETTINGS, WEIGHTS = "config.json", "model.safetensors"


class HoldsMixture:
    """An expert that wraps one expert, or a gate with several, of moeframe's own."""

    inner: MergedDenoiser


def save_expert(expert: Expert, folder: Path) -> Path:
    """Write one expert's settings and weights, to be read as `{type: checkpoint, path: folder}` on any machine.

    A wrapper of a single expert is written as that expert. Raises InputError for one that cannot be moved this
    way, StorageError where the disk does not take it.
    """
    core = expert.core()
    if core is not expert:
        return save_expert(core, folder)
    if isinstance(expert, HoldsMixture):
        raise InputError(
            f"{getattr(expert.config, 'path', expert.name())} holds a mixture of {len(expert.inner.experts)}, or an "
            "adapter on its trunk, and no single expert with weights of its own; name one expert, or export the run as "
            "a whole"
        )
    if isinstance(expert, AdapterExpert):
        raise InputError(
            f"an expert of type '{expert.name()}' is a change of its run's trunk and nothing alone; "
            "export the run as a whole"
        )
    if isinstance(expert, PretrainedExpert):
        raise InputError(
            f"an expert of type '{expert.name()}' is read from {expert.config.path}; move that instead of saving it"
        )
    settings = expert.config.model_copy(update={"copies": 1}).model_dump(mode="json")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in expert.state_dict().items()}
    metadata = {"images": described(expert.image)}  # one entry: safetensors writes several in any order
    write_file(folder / WEIGHTS, safetensors.torch.save(tensors, metadata=metadata))
    write_file(folder / SETTINGS, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def read_expert(folder: Path, image: ImageShape) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors. Raises DataError or CheckpointError."""
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: holds no {name}; 'path' names a folder that save_expert wrote")
    settings, tensors = read_settings(folder / SETTINGS), read_tensors(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        meant = (file.metadata() or {}).get("images", described(image))
    if meant != described(image):
        raise DataError(
            f"{folder}: its expert is for images of {meant}, the run's are of {described(image)}; "
            "use an expert of such images or another dataset"
        )
    return settings, tensors


def described(image: ImageShape) -> str:
    """Shape and levels in words, for comparison and messages."""
    return f"{image.channels}x{image.height}x{image.width} with {image.levels} levels"


def build_expert(
    settings: Any, registry: Registry, image: ImageShape, origin: str, *, copy: int = 0, seed: int = 0
) -> Expert:
    """The expert that the settings describe, weights drawn at random: a copy of its section, in a seed of its run.

    Raises CheckpointError or PluginError.
    """
    try:
        config = config_of(settings, "experts", registry)
    except (ValidationError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{origin}: does not describe an expert of this moeframe: {' '.join(str(error).split())[:300]}; "
            "use the release that wrote it"
        ) from None
    except PluginError as error:
        raise PluginError(f"{origin}: {error}") from None
    assert isinstance(config, Expert.Config)
    return registry.get(Expert, config.type)(config.for_copy(copy).for_seed(seed), image=image)


def config_of(settings: Any, kind: str, registry: Registry) -> Component.Config:
    """The validated Config of plain settings, with those of its parts."""
    component = registry.get(KINDS[kind], settings["type"])
    parts: dict[str, Any] = {}
    for field, part_kind in component.PARTS.items():
        found = settings.get(field)
        one = isinstance(found, dict)
        parts |= {field: config_of(found, part_kind, registry)} if one else {}
        parts |= {field: [config_of(part, part_kind, registry) for part in found]} if found and not one else {}
    return component.Config.model_validate({**settings, **parts})


M = TypeVar("M", bound=nn.Module)


def fitted(module: M, tensors: Mapping[str, Tensor], origin: Path) -> M:
    """The module with the weights in it. Raises CheckpointError naming the file whose weights do not fit."""
    load_exactly(module, tensors, origin, "use it with images of the channels and size that it was trained on")
    return module
