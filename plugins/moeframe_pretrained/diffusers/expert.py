"""Any unconditional UNet2DModel of diffusers, from a local folder, with its scheduler's noise levels.

The chain is variance preserving like ours; it differs in the pixel grid (u = i / 127.5 - 1), time as a step index,
and what the network predicts. Nothing is downloaded and no code of the checkpoint is run.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from moeframe.diffusion import velocity_from_image, velocity_from_noise
from moeframe.errors import CheckpointError, DataError, UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.shapes import Images, LogSnr
from moeframe.storage.atomic import write_file
from moeframe_pretrained.checkpoint_files import load_exactly, read_settings, read_tensors
from moeframe_pretrained.diffusers.folder import find_parts, with_names_of_today
from moeframe_pretrained.discrete_steps import StepTable
from moeframe_pretrained.pixel_grid import PixelGrid
from moeframe_pretrained.pretrained import PretrainedExpert, sha256_of

PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""Schedulers whose settings describe the chain that the network was trained on, with the same keys."""
_CHAIN = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


class DiffusersExpert(PretrainedExpert):
    """A UNet2DModel of diffusers from a local folder; predicts noise (epsilon), image (sample) or velocity."""

    class Config(PretrainedExpert.Config):
        type: Literal["diffusers"] = "diffusers"
        step: Literal["interpolated", "nearest"] = Field(
            default="interpolated",
            description="the step index that the network receives: fractional, linear in log-SNR between two training "
            "steps, or the nearest training step",
        )
        pixel_grid: Literal["both_ends", "centres"] = Field(
            default="both_ends",
            description="pixel values of the levels in its training data: 2 i / (L - 1) - 1, as diffusers' pipelines "
            "assume, or bin centres as here",
        )

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        parts = find_parts(config.path)
        self._scheduler_file = parts.scheduler
        self.prediction, self.steps = _read_chain(parts.scheduler)
        self.settings = settings = read_settings(parts.network)
        _check_settings(settings, parts.network, image, config)
        self.network = _build(settings, parts.network)
        tensors = with_names_of_today(read_tensors(parts.weights))
        load_exactly(self.network, tensors, parts.weights, f"take it and {parts.network} from one checkpoint")
        self.weights_sha256 = sha256_of([parts.weights])
        both_ends = config.pixel_grid == "both_ends"
        self.grid = PixelGrid.reaching_both_ends(image.levels) if both_ends else PixelGrid(1.0)

    def levels_at(self) -> str:
        """That of the checkpoint."""
        return self.grid.what

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """From the last training step to the first, in our log-SNR. A last step of pure noise (ᾱ = 0) is omitted."""
        low, high = self.steps.range
        return low - self.grid.log_snr_shift, high - self.grid.log_snr_shift

    def architecture(self) -> Mapping[str, Any]:
        """The settings of the network, its prediction type and its chain."""
        return {
            **super().architecture(),
            "predicts": self.prediction,
            "chain": hashlib.sha256(self.steps.log_snrs.cpu().numpy().tobytes()).hexdigest(),
            "network": {key: value for key, value in self.settings.items() if not key.startswith("_")},
        }

    def save_pretrained(self, folder: Path) -> None:
        """Write the network with its current weights, and its training scheduler, in the layout of a pipeline."""
        self.network.save_pretrained(folder / "unet")  # type: ignore[operator]
        write_file(folder / "scheduler/scheduler_config.json", self._scheduler_file.read_bytes())

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity from the network's native prediction at its own grid, scale and step index.

        With `step: nearest` only the index is rounded; the conversion is at the true log-SNR. UNet2DModel's sinusoidal
        time embedding accepts fractional indices.
        """
        exact = log_snr.double()
        z_there, there = self.grid.noisy(z, exact)
        precision = next(self.network.parameters()).dtype
        output = self.network(z_there.to(precision), self._index(there), return_dict=False)[0].to(z)
        match self.prediction:
            case "v_prediction":
                velocity = output
            case "sample":
                velocity = velocity_from_image(output, z_there, there)
            case _:
                velocity = velocity_from_noise(output, z_there, there)
        return self.grid.velocity_back(velocity, z, exact)

    def _index(self, log_snr: LogSnr) -> torch.Tensor:
        index = self.steps.step(log_snr, self.config.step)
        return index.long() if self.config.step == "nearest" else index.float()


def _read_chain(path: Path) -> tuple[str, StepTable]:
    """What the network predicts, and the log-SNR of each training step."""
    settings = read_settings(path)
    kind = settings.get("_class_name")
    if kind not in SCHEDULERS:
        raise CheckpointError(
            f"{path}: scheduler {kind!r} does not say on which chain the network was trained; known: "
            f"{', '.join(SCHEDULERS)}; save the training scheduler there, as DDPMScheduler(...).save_pretrained(folder)"
        )
    prediction = settings.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise CheckpointError(
            f"{path}: prediction_type {prediction!r} is unknown; known: {', '.join(PREDICTIONS)}; "
            "name what the network was trained to predict"
        )
    ddpm = _diffusers(path).DDPMScheduler
    try:
        scheduler = ddpm(**{key: settings[key] for key in _CHAIN if key in settings})
        if not bool(((scheduler.betas > 0) & (scheduler.betas <= 1)).all()):
            raise ValueError("each beta must be in (0, 1]")
        return prediction, StepTable.of_alpha_bar(scheduler.alphas_cumprod)
    except Exception as error:  # diffusers checks no settings, so a wrong one fails where it is used
        chain = ", ".join(f"{key}: {str(settings[key])[:40]}" for key in _CHAIN if key in settings)
        raise CheckpointError(
            f"{path}: its settings do not define noise levels ({chain or 'none given'}): {error}; correct them"
        ) from None


def _check_settings(settings: dict[str, Any], path: Path, image: ImageShape, config: DiffusersExpert.Config) -> None:
    """Raise CheckpointError for a network of another kind, DataError for one that does not fit the run's images."""
    if "auto_map" in settings:
        raise CheckpointError(f"{path}: auto_map requests code of the checkpoint, which is never run; remove the key")
    if settings.get("_class_name") != "UNet2DModel":
        raise CheckpointError(f"{path}: is of a {settings.get('_class_name')!r}; only UNet2DModel is read")
    if settings.get("class_embed_type") is not None or settings.get("num_class_embeds") is not None:
        raise CheckpointError(
            f"{path}: is of a class-conditional network (class_embed_type {settings.get('class_embed_type')!r}, "
            f"num_class_embeds {settings.get('num_class_embeds')!r}); experts here see no labels: use an unconditional "
            "one"
        )
    embedding = settings.get("time_embedding_type", "positional")
    if embedding == "fourier":
        raise CheckpointError(
            f"{path}: time_embedding_type 'fourier' is of a variance-exploding network (SDE-VE), "
            "whose time is not a step index; only 'positional' and 'learned' are read"
        )
    if embedding == "learned" and config.step != "nearest":
        raise CheckpointError(
            f"{path}: time_embedding_type 'learned' knows integer steps only; set the expert's step: nearest"
        )
    for key in ("in_channels", "out_channels"):
        if settings.get(key, 3) != image.channels:
            learned = settings.get(key, 3) == 2 * image.channels and key == "out_channels"
            why = "; the second half would be a learned variance, which is not read" if learned else ""
            raise DataError(
                f"{path}: {key} {settings.get(key, 3)}, but the run's images have {image.channels}{why}; "
                "use a checkpoint of such images or another dataset"
            )
    _check_size(settings, path, image)


def _check_size(settings: dict[str, Any], path: Path, image: ImageShape) -> None:
    size = settings.get("sample_size")
    wanted = [image.height, image.width]
    if size is not None and (list(size) if isinstance(size, list | tuple) else [size, size]) != wanted:
        raise DataError(
            f"{path}: sample_size {size}, but the run's images are {image.height}x{image.width}; "
            "use a checkpoint of that size or another dataset size"
        )
    blocks = settings.get("down_block_types")
    factor = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 1
    if image.height % factor or image.width % factor:
        raise DataError(
            f"{path}: its network halves images {factor.bit_length() - 1} times, and {image.height}x{image.width} "
            f"is not divisible by {factor}; use another dataset size"
        )


def _build(settings: dict[str, Any], path: Path) -> nn.Module:
    unet = _diffusers(path).UNet2DModel
    known = {key: value for key, value in settings.items() if not key.startswith("_")}
    try:
        network: nn.Module = unet(**known)
    except Exception as error:  # diffusers checks few settings, so a wrong one fails where it is used
        version = settings.get("_diffusers_version", "unknown")
        raise CheckpointError(
            f"{path}: no UNet2DModel can be built from it: {error}; correct it, or install the diffusers that wrote it "
            f"(version {version})"
        ) from None
    return network


def _diffusers(path: Path) -> Any:
    try:
        import diffusers
    except ImportError:
        raise UnavailableError(f"{path}: reading it needs diffusers; pip install 'moeframe[pretrained]'") from None
    return diffusers
