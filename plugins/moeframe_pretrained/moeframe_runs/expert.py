"""Experts that moeframe trained, taken from a run folder, or from a folder that `moeframe export` wrote."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from moeframe.assembly import build_model
from moeframe.errors import InputError, RunFolderError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert, Jumps
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.shapes import Images, LogSnr
from moeframe.spec.loader import load_spec
from moeframe.storage.checkpoint import latest, load
from moeframe.storage.run_folder import RunFolder
from moeframe_pretrained.moeframe_runs.expert_folder import (
    SETTINGS,
    WEIGHTS,
    HoldsMixture,
    build_expert,
    fitted,
    read_expert,
)
from moeframe_pretrained.moeframe_runs.mixture_folder import is_mixture, read_mixture
from moeframe_pretrained.pretrained import PretrainedExpert, sha256_of


class RunExpert(PretrainedExpert, HoldsMixture):
    """One expert of a moeframe run, or its whole mixture as one expert."""

    class Config(PretrainedExpert.Config):
        type: Literal["run"] = "run"
        path: Path = Field(description="a run folder of moeframe")
        expert: int | Literal["merged", "each"] = Field(
            default="merged",
            description="its number in the run, counted from 0; merged: gate and experts as one; each: with copies: K "
            "the experts 0 to K - 1",
        )
        seed: Annotated[int, Field(ge=0)] | Literal["first", "same"] = Field(
            default="first", description="which of that run's seeds; same: that of the seed at hand, so that they pair"
        )
        weights: Literal["ema", "raw"] = Field(default="ema", description="averaged weights, or the last ones")

        def for_copy(self, number: int) -> "Expert.Config":
            """`each` becomes the number."""
            return self.model_copy(update={"expert": number}) if self.expert == "each" else self

        def for_seed(self, seed: int) -> "Expert.Config":
            """`same` becomes the seed."""
            return self.model_copy(update={"seed": seed}) if self.seed == "same" else self

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        assert config.expert != "each", "for_copy gives each its number"
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
            whole = fitted(
                build_model(load_spec(place.spec, registry), registry, image, Streams(seed)), tensors, folder
            )
            if config.expert == "merged":
                _check_gate(whole, place.path)
                self.inner = whole
            else:
                _section_of_expert(place, spec, config.expert)  # says so, where there is no such expert
                self.inner = whole.alone(config.expert)
        else:
            settings, copy = _section_of_expert(place, spec, config.expert)
            prefix = f"experts.{config.expert}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            built = build_expert(settings, registry, image, str(place.spec), copy=copy, seed=seed)
            expert = fitted(built, own, folder)
            self.inner = MergedDenoiser([expert])
        self.weights_sha256 = sha256_of([folder / f"{group}.safetensors"])

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Where the expert is valid; of a mixture where all are that neither clamp nor are excluded."""
        return _common_range(self.inner)

    @property
    def jumps(self) -> Jumps:
        """Those of what is inside."""
        return self.inner.jumps

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


class CheckpointExpert(PretrainedExpert, HoldsMixture):
    """One expert, or a whole mixture as one, from a folder that `moeframe export --format safetensors` wrote."""

    class Config(PretrainedExpert.Config):
        type: Literal["checkpoint"] = "checkpoint"
        path: Path = Field(description="a folder with config.json (or mixture.json) and model.safetensors")
        trust_code: bool = Field(
            default=False, description="run the program that a folder brings, such as a gate's TorchScript classifier"
        )

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        if is_mixture(config.path):
            self.inner = read_mixture(config.path, image, trust_code=config.trust_code).model
            _check_gate(self.inner, config.path)
        else:
            settings, tensors = read_expert(config.path, image)
            expert = build_expert(settings, Registry.installed(), image, str(config.path / SETTINGS))
            self.inner = MergedDenoiser([fitted(expert, tensors, config.path / WEIGHTS)])
        self.weights_sha256 = sha256_of(sorted(config.path.rglob("*.safetensors")))

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Where what is inside is valid."""
        return _common_range(self.inner)

    @property
    def jumps(self) -> Jumps:
        """Those of what is inside."""
        return self.inner.jumps

    def provenance(self) -> Mapping[str, str]:
        """What every pretrained expert says, and what those inside say."""
        return {**super().provenance(), **_origins(self.inner)}

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


def _seed_of(place: RunFolder, spec: dict[str, Any], wanted: int | Literal["first", "same"]) -> int:
    seeds = spec.get("seeds", [0])
    if isinstance(wanted, str):
        return int(seeds[0])
    if wanted not in seeds:
        raise RunFolderError(f"{place.path}: has no seed {wanted}; its seeds are {', '.join(map(str, seeds))}")
    return wanted


def _section_of_expert(place: RunFolder, spec: dict[str, Any], number: int) -> tuple[dict[str, Any], int]:
    """Settings of the section of expert `number`, and which of its copies that is. Raises RunFolderError."""
    with suppress(KeyError, TypeError, AttributeError):
        each = [(section, copy) for section in spec["experts"] for copy in range(section.get("copies", 1))]
        if 0 <= number < len(each):
            section, copy = each[number]
            return dict(section), copy
        raise RunFolderError(f"{place.path}: has no expert {number}; its experts are 0 .. {len(each) - 1}")
    raise RunFolderError(f"{place.spec}: is damaged: its section 'experts' is no list of settings; take another run")


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
