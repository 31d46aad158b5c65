"""Experts that moeframe trained: taken from a run folder, or from a folder with one expert that `save_expert` wrote."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import safetensors.torch
from pydantic import Field, ValidationError
from safetensors import safe_open
from torch import Tensor, nn

from moeframe.assembly import build_model
from moeframe.checkpoint import latest, load
from moeframe.errors import CheckpointError, DataError, InputError, PluginError, RunFolderError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.trunk import AdapterExpert
from moeframe.mixture import MergedDenoiser
from moeframe.plugins import KINDS
from moeframe.randomness import Streams
from moeframe.registry import Registry
from moeframe.run_folder import RunFolder
from moeframe.shapes import Images, LogSnr
from moeframe.spec_file import load_spec
from moeframe.storage import write_file
from moeframe_pretrained.checkpoint_files import load_exactly, read_settings, read_tensors
from moeframe_pretrained.pretrained import PretrainedExpert, sha256_of

SETTINGS, WEIGHTS = "config.json", "model.safetensors"


class RunExpert(PretrainedExpert):
    """One expert of a moeframe run, or its whole mixture as one expert."""

    class Config(PretrainedExpert.Config):
        type: Literal["run"] = "run"
        path: Path = Field(description="a run folder of moeframe")
        expert: int | Literal["merged"] = Field(
            default="merged", description="its number in the run, counted from 0; merged: gate and experts as one"
        )
        seed: Annotated[int, Field(ge=0)] | Literal["first", "same"] = Field(
            default="first", description="which of that run's seeds; same: that of the seed at hand, so that they pair"
        )
        weights: Literal["ema", "raw"] = Field(default="ema", description="averaged weights, or the last ones")

        def for_seed(self, seed: int) -> "Expert.Config":
            """`same` becomes the seed."""
            return self.model_copy(update={"seed": seed}) if self.seed == "same" else self

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        place = RunFolder(config.path)
        spec = place.read_spec()
        seed = _seed_of(place, spec, config.seed)
        folder = latest(place.checkpoints(seed))
        if folder is None:
            raise RunFolderError(f"{place.path}: has no checkpoint of seed {seed}; train it with `moeframe run` first")
        group = "ema" if config.weights == "ema" else "model"
        tensors = load(folder).tensors[group]
        registry = Registry.installed()
        if config.expert == "merged" or spec.get("trunk") is not None:
            whole = _fitted(
                build_model(load_spec(place.spec, registry), registry, image, Streams(seed)), tensors, folder
            )
            if config.expert == "merged":
                _check_gate(whole, place.path)
                self.inner = whole
            else:
                _settings_of_expert(place, spec, config.expert)  # says so, where there is no such expert
                self.inner = whole.alone(config.expert)
        else:
            settings = _settings_of_expert(place, spec, config.expert)
            prefix = f"experts.{config.expert}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            expert = _fitted(_build(settings, registry, image, str(place.spec)), own, folder)
            self.inner = MergedDenoiser([expert])
        self.weights_sha256 = sha256_of([folder / f"{group}.safetensors"])

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Where the expert is valid; of a mixture where all are that neither clamp nor are excluded."""
        return _common_range(self.inner)

    def family_licence(self) -> str:
        """Nobody but the user has stated one."""
        return "your own run"

    def provenance(self) -> Mapping[str, str]:
        """What every pretrained expert says, and which expert of the run this is, with its own origin if it has one."""
        which = {"expert": str(self.config.expert), "weights": self.config.weights}
        return {**super().provenance(), **which, **_origins(self.inner)}

    def core(self) -> Expert:
        """The expert inside, where there is but one."""
        return _core(self.inner, self)

    def architecture(self) -> Mapping[str, Any]:
        """That of what is inside, wherever it was read from."""
        return _architecture(self.inner)

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity of the expert, or the merged one."""
        velocity: Images = self.inner(z, log_snr).velocity
        return velocity


class CheckpointExpert(PretrainedExpert):
    """One expert of moeframe from a folder with config.json and model.safetensors, as `save_expert` writes them."""

    class Config(PretrainedExpert.Config):
        type: Literal["checkpoint"] = "checkpoint"
        path: Path = Field(description="a folder with config.json and model.safetensors of one expert")

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        settings, tensors = _read_expert(config.path, image)
        expert = _build(settings, Registry.installed(), image, str(config.path / SETTINGS))
        self.inner = MergedDenoiser([_fitted(expert, tensors, config.path / WEIGHTS)])
        self.weights_sha256 = sha256_of([config.path / WEIGHTS])

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Where the expert is valid."""
        return _common_range(self.inner)

    def provenance(self) -> Mapping[str, str]:
        """What every pretrained expert says."""
        return {**super().provenance(), **_origins(self.inner)}

    def core(self) -> Expert:
        """The expert inside, where there is but one."""
        return _core(self.inner, self)

    def architecture(self) -> Mapping[str, Any]:
        """That of what is inside, wherever it was read from."""
        return _architecture(self.inner)

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity of the expert."""
        velocity: Images = self.inner(z, log_snr).velocity
        return velocity


def save_expert(expert: Expert, folder: Path) -> Path:
    """Write one expert's settings and weights, to be read as `{type: checkpoint, path: folder}` on any machine.

    What wraps a single expert of a run is written as that expert. Raises InputError for one that cannot be moved this
    way, StorageError where the disk does not take it.
    """
    if isinstance(expert, RunExpert | CheckpointExpert):
        inner = expert.core()
        if inner is expert:
            raise InputError(
                f"{expert.config.path} holds a mixture of {len(expert.inner.experts)}, or an adapter on its trunk, and "
                "no single expert with weights of its own; name one expert, or export the run as a whole"
            )
        return save_expert(inner, folder)
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
    metadata = {"images": _described(expert.image)}  # one entry: safetensors writes several in any order
    write_file(folder / WEIGHTS, safetensors.torch.save(tensors, metadata=metadata))
    write_file(folder / SETTINGS, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def _read_expert(folder: Path, image: ImageShape) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors. Raises DataError or CheckpointError."""
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: holds no {name}; 'path' names a folder that save_expert wrote")
    settings, tensors = read_settings(folder / SETTINGS), read_tensors(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        meant = (file.metadata() or {}).get("images", _described(image))
    if meant != _described(image):
        raise DataError(
            f"{folder}: its expert is for images of {meant}, the run's are of {_described(image)}; "
            "use an expert of such images or another dataset"
        )
    return settings, tensors


def _described(image: ImageShape) -> str:
    return f"{image.channels}x{image.height}x{image.width} with {image.levels} levels"


def _seed_of(place: RunFolder, spec: dict[str, Any], wanted: int | Literal["first", "same"]) -> int:
    seeds = spec.get("seeds", [0])
    if isinstance(wanted, str):
        return int(seeds[0])
    if wanted not in seeds:
        raise RunFolderError(f"{place.path}: has no seed {wanted}; its seeds are {', '.join(map(str, seeds))}")
    return wanted


def _settings_of_expert(place: RunFolder, spec: dict[str, Any], number: int) -> dict[str, Any]:
    """Settings of expert `number`, copies counted. Raises RunFolderError."""
    with suppress(KeyError, TypeError, AttributeError):
        each = [section for section in spec["experts"] for _ in range(section.get("copies", 1))]
        if 0 <= number < len(each):
            return dict(each[number])
        raise RunFolderError(f"{place.path}: has no expert {number}; its experts are 0 .. {len(each) - 1}")
    raise RunFolderError(f"{place.spec}: is damaged: its section 'experts' is no list of settings; take another run")


def _build(settings: Any, registry: Registry, image: ImageShape, origin: str) -> Expert:
    """The expert that the settings describe, weights drawn at random. Raises CheckpointError or PluginError."""
    try:
        config = _config_of(settings, "experts", registry)
    except (ValidationError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{origin}: does not describe an expert of this moeframe: {' '.join(str(error).split())[:300]}; "
            "use the release that wrote it"
        ) from None
    except PluginError as error:
        raise PluginError(f"{origin}: {error}") from None
    assert isinstance(config, Expert.Config)
    return registry.get(Expert, config.type)(config, image=image)


def _config_of(settings: Any, kind: str, registry: Registry) -> Component.Config:
    """The validated Config of plain settings, with those of its parts."""
    component = registry.get(KINDS[kind], settings["type"])
    parts: dict[str, Any] = {}
    for field, part_kind in component.PARTS.items():
        found = settings.get(field)
        one = isinstance(found, dict)
        parts |= {field: _config_of(found, part_kind, registry)} if one else {}
        parts |= {field: [_config_of(part, part_kind, registry) for part in found]} if found and not one else {}
    return component.Config.model_validate({**settings, **parts})


M = TypeVar("M", bound=nn.Module)


def _fitted(module: M, tensors: Mapping[str, Tensor], origin: Path) -> M:
    """The module with the weights in it. Raises CheckpointError naming the file whose weights do not fit."""
    load_exactly(module, tensors, origin, "use it with images of the channels and size that it was trained on")
    return module


def _check_gate(mixture: MergedDenoiser, folder: Path) -> None:
    """An expert is a function of (z, λ) alone, which a gate that draws is not."""
    if mixture.gate is not None and mixture.gate.random:
        raise InputError(
            f"{folder}: its gate '{mixture.gate.name()}' draws at random, so the mixture is no expert; "
            "name one of its experts, expert: 0"
        )


def _experts(mixture: MergedDenoiser) -> list[Expert]:
    return [expert for expert in mixture.experts if isinstance(expert, Expert)]


def _core(mixture: MergedDenoiser, wrapper: Expert) -> Expert:
    inside = _experts(mixture)
    return inside[0].core() if len(inside) == 1 and mixture.trunk is None else wrapper


def _architecture(mixture: MergedDenoiser) -> Mapping[str, Any]:
    gate = None if mixture.gate is None else mixture.gate.config.model_dump(mode="json")
    return {"experts": [expert.architecture() for expert in _experts(mixture)], "gate": gate}


def _common_range(mixture: MergedDenoiser) -> tuple[float, float]:
    experts = _experts(mixture)
    needed = [expert.log_snr_range for expert in experts if expert.config.outside == "error"]
    if needed or len(experts) == 1:
        lows, highs = zip(*(needed or [experts[0].log_snr_range]), strict=True)
        return max(lows), min(highs)
    lows, highs = zip(*(expert.log_snr_range for expert in experts), strict=True)
    return min(lows), max(highs)


def _origins(mixture: MergedDenoiser) -> Mapping[str, str]:
    """Where experts inside come from, if they were not trained from nothing."""
    return {
        f"inner {k} {key}": value
        for k, expert in enumerate(_experts(mixture))
        for key, value in expert.provenance().items()
    }
