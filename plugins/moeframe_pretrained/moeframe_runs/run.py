"""Experts that moeframe trained, read from their run folder."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from moeframe.assembly import build_model
from moeframe.errors import RunFolderError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.spec.loader import load_spec
from moeframe.storage.checkpoint import latest, load
from moeframe.storage.run_folder import RunFolder
from moeframe_pretrained.moeframe_runs.expert_folder import build_expert, fitted
from moeframe_pretrained.moeframe_runs.mixture_expert import MixtureExpert, require_deterministic_gate
from moeframe_pretrained.pretrained import sha256_of


class RunExpert(MixtureExpert):
    """One expert of a moeframe run, or its mixture as one expert."""

    class Config(MixtureExpert.Config):
        type: Literal["run"] = "run"
        path: Path = Field(description="a run folder of moeframe")
        expert: int | Literal["merged", "each"] = Field(
            default="merged",
            description="its number in the run, counted from 0; merged: gate and experts as one; each: with copies: K "
            "the experts 0 to K - 1",
        )
        seed: Annotated[int, Field(ge=0)] | Literal["first", "same"] = Field(
            default="first", description="which of that run's seeds; same: the seed being run, so that seeds pair"
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
                require_deterministic_gate(whole, place.path)
                self.inner = whole
            else:
                _section_of_expert(place, spec, config.expert)  # raises if there is no such expert
                self.inner = whole.alone(config.expert)
        else:
            settings, copy = _section_of_expert(place, spec, config.expert)
            prefix = f"experts.{config.expert}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            built = build_expert(settings, registry, image, str(place.spec), copy=copy, seed=seed)
            expert = fitted(built, own, folder)
            self.inner = MergedDenoiser([expert])
        self.weights_sha256 = sha256_of([folder / f"{group}.safetensors"])

    def family_licence(self) -> str:
        """The licence is the user's own."""
        return "your own run"

    def provenance(self) -> Mapping[str, str]:
        """What every pretrained expert says, and which expert of the run this is, with its own origin if it has one."""
        which = {"expert": str(self.config.expert), "weights": self.config.weights}
        return {**super().provenance(), **which}


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
    raise RunFolderError(f"{place.spec}: is damaged: its section 'experts' is not a list of settings; take another run")
