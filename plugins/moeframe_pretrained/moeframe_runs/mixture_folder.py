"""A self-contained mixture on disk: every expert in the format of its family, with trunk and gate.

mixture.json describes the parts, the images and the noise levels; experts/K holds each expert's own
checkpoint, and model.safetensors the rest: the gate, the trunk, its adapters.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from moeframe.assembly import build_mixture
from moeframe.errors import CheckpointError, DataError, PluginError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.exporter import TrainedModel
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.storage.atomic import storage_errors_at, write_file
from moeframe_pretrained.checkpoint_files import listed, read_settings, read_tensors
from moeframe_pretrained.moeframe_runs.expert_folder import WEIGHTS, HoldsMixture, config_of, described, save_expert
from moeframe_pretrained.pretrained import PretrainedExpert

MIXTURE = "mixture.json"
FORMAT = 1


@dataclass(frozen=True)
class Mixture:
    """What a folder holds."""

    model: MergedDenoiser
    image: ImageShape
    schedule: NoiseSchedule


def mixture_of(trained: TrainedModel) -> Mixture:
    """The merged model of a finished run."""
    assert isinstance(trained.denoiser, MergedDenoiser)
    return Mixture(trained.denoiser, trained.image, trained.schedule)


def is_mixture(folder: Path) -> bool:
    """Whether a mixture was written there."""
    return (folder / MIXTURE).is_file()


def write_mixture(model: MergedDenoiser, image: ImageShape, schedule: NoiseSchedule, folder: Path) -> None:
    """Write all that `read_mixture` needs. Raises StorageError, or InputError for a part that cannot be moved."""
    experts: list[dict[str, Any]] = []
    own: dict[str, Tensor] = {}
    for k, expert in enumerate(model.experts):
        assert isinstance(expert, Expert)
        experts.append(_write_expert(expert, schedule, folder, k))
        core = expert.core()
        if isinstance(core, AdapterExpert) or _was_trained(core):
            own |= {f"experts.{k}.{name}": tensor for name, tensor in core.state_dict().items()}
    for part, module in (("gate", model.gate), ("trunk", model.trunk)):
        if module is not None:
            own |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}
    write_file(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"images": described(image)}))
    content = {
        "format": FORMAT,
        "image": asdict(image),
        "schedule": schedule.config.model_dump(mode="json"),
        "trunk": None if model.trunk is None else model.trunk.standalone_config().model_dump(mode="json"),
        "experts": experts,
        "gate": None if model.gate is None else _write_gate(model.gate, folder),
    }
    # Last, because its presence says that the folder is complete.
    write_file(folder / MIXTURE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _write_gate(gate: Gate, folder: Path) -> dict[str, Any]:
    """The gate's settings; files that it runs go along, named relative to the folder."""
    settings = gate.config.model_dump(mode="json")
    for field, file in gate.config.programs.items():
        place = folder / "gate" / f"{field}{file.suffix}"
        with storage_errors_at(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        settings[field] = str(place.relative_to(folder))
    return settings


def _write_expert(expert: Expert, schedule: NoiseSchedule, folder: Path, k: int) -> dict[str, Any]:
    """Write one expert's checkpoint; returns the settings that read it, its path relative to the folder."""
    common: dict[str, Any] = {"copies": 1, "outside": expert.config.outside}
    if isinstance(expert, AdapterExpert):
        return expert.config.model_dump(mode="json") | common
    place = folder / "experts" / str(k)
    core = expert.core()
    if isinstance(core, HoldsMixture):
        write_mixture(core.inner, expert.image, schedule, place)
    elif isinstance(core, PretrainedExpert):
        settings = core.config.model_dump(mode="json") | common
        with storage_errors_at(place):
            place.mkdir(parents=True, exist_ok=True)
            if core.config.path.is_dir():
                shutil.copytree(core.config.path, place, dirs_exist_ok=True)
                return settings | {"path": f"experts/{k}", **_stated(expert)}
            shutil.copy(core.config.path, place / core.config.path.name)
        return settings | {"path": f"experts/{k}/{core.config.path.name}", **_stated(expert)}
    else:
        save_expert(core, place)
    return {"type": "checkpoint", "path": f"experts/{k}", **common, **_stated(expert)}


def _stated(expert: Expert) -> Mapping[str, str]:
    """Source and licence, which go with the weights."""
    known = expert.provenance()
    return {key: known[key] for key in ("source", "licence") if known.get(key, "not stated") != "not stated"}


def _was_trained(core: Expert) -> bool:
    """Whether the weights of a pretrained expert differ from its files, because it was trained further."""
    if not isinstance(core, PretrainedExpert) or isinstance(core, HoldsMixture):
        return False
    fresh = type(core)(core.config, image=core.image).state_dict()
    return any(not tensor.cpu().equal(fresh[name]) for name, tensor in core.state_dict().items())


def read_mixture(folder: Path, image: ImageShape | None = None, *, trust_code: bool = False) -> Mixture:
    """The mixture of a folder, for images of its own shape unless `image` says which it must be.

    Code in the folder is run only with `trust_code`. Raises DataError or CheckpointError naming the file.
    """
    content, origin = read_settings(folder / MIXTURE), folder / MIXTURE
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{origin}: format {content.get('format')}, this moeframe reads {FORMAT}; update moeframe"
        )
    registry = Registry.installed()
    try:
        own = ImageShape(**content["image"])
        schedule_config = config_of(content["schedule"], "schedules", registry)
        trunk = None if content["trunk"] is None else config_of(content["trunk"], "trunks", registry)
        gate = None if content["gate"] is None else _gate_config(content["gate"], folder, registry, trust_code)
        experts = [config_of(_placed(settings, folder), "experts", registry) for settings in content["experts"]]
    except PluginError as error:
        raise PluginError(f"{origin}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{origin}: does not describe a mixture of this moeframe: {why}; export it again"
        ) from None
    if image is not None and image != own:
        raise DataError(
            f"{folder}: its mixture is for images of {described(own)}, the run's are of {described(image)}; "
            "use a mixture of such images or another dataset"
        )
    model = build_mixture(
        _as(Trunk.Config, trunk),
        [config for config in experts if isinstance(config, Expert.Config)],
        _as(Gate.Config, gate),
        registry,
        own,
        Streams(0),
    )
    _load(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    assert isinstance(schedule_config, NoiseSchedule.Config)
    schedule = registry.get(NoiseSchedule, schedule_config.type)(schedule_config)
    return Mixture(model.eval(), own, schedule)


def _gate_config(settings: dict[str, Any], folder: Path, registry: Registry, trust_code: bool) -> Component.Config:
    """The gate's Config with its files in the folder. Raises CheckpointError for code that is not trusted."""
    config = config_of(settings, "gates", registry)
    assert isinstance(config, Gate.Config)
    if not config.programs:
        return config
    if not trust_code:
        raise CheckpointError(
            f"{folder}: its gate '{config.type}' runs a program that comes with it ({', '.join(config.programs)}: "
            f"{', '.join(map(str, config.programs.values()))}); if you trust where it comes from, set the expert's "
            "trust_code: true, or read_mixture(..., trust_code=True)"
        )
    inside = {field: str(folder / file) for field, file in config.programs.items()}
    return config_of(settings | inside, "gates", registry)


def _placed(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    return settings | {"path": str(folder / settings["path"])} if "path" in settings else settings


def _as(kind: type[Any], config: Component.Config | None) -> Any:
    assert config is None or isinstance(config, kind)
    return config


def _load(model: MergedDenoiser, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put gate, trunk and adapters in place. Raises CheckpointError listing what is missing or unexpected."""
    needed = {
        name
        for name in model.state_dict()
        if not name.startswith("experts.") or isinstance(model.experts[int(name.split(".")[1])], AdapterExpert)
    }
    try:
        found = model.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:
        first = str(error).strip().split("\n")[-1].strip()
        raise CheckpointError(f"{path}: does not fit the mixture: {first}; export it again") from None
    missing = sorted(needed & set(found.missing_keys))
    wrong = [
        f"{what}: {listed(names)}"
        for what, names in (("missing", missing), ("unexpected", found.unexpected_keys))
        if names
    ]
    if wrong:
        raise CheckpointError(f"{path}: does not fit the mixture; tensors {'; '.join(wrong)}; export it again")
