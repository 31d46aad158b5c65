"""The merged model as a network of diffusers' pipelines: a step index instead of a log-SNR, levels at both ends.

Import it before diffusers loads an exported pipeline, whose model_index.json names this module; diffusers finds
out how to load the network by the name ModelMixin in it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from moeframe.interfaces.schedule import NoiseSchedule
from moeframe_pretrained.checkpoint_files import read_settings
from moeframe_pretrained.moeframe_runs.mixture_folder import Mixture, read_mixture, write_mixture
from moeframe_pretrained.pixel_grid import PixelGrid

__all__ = ["MergedUNet", "ModelMixin", "chain_of"]


@dataclass(frozen=True)
class Chain:
    """Noise levels of a discrete chain, from clean to noisy, on the grid that reaches both ends."""

    log_snr: Tensor
    """float64, one per step."""
    betas: list[float]
    """What diffusers' schedulers call trained_betas: ᾱ_i = Π (1 - β_j)."""


def chain_of(schedule: NoiseSchedule, levels: int, steps: int) -> Chain:
    """`steps` noise levels, evenly spaced in the schedule's time from its cleanest to its noisiest, both included."""
    times = torch.linspace(0, 1, steps, dtype=torch.float64)
    log_snr = schedule.log_snr(times) + PixelGrid.reaching_both_ends(levels).log_snr_shift
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(log_snr)])
    return Chain(log_snr, (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist())


class MergedUNet(ModelMixin, ConfigMixin):
    """Predicts velocity (v_prediction) as diffusers' UNet2DModel does: from a noisy image and its step index."""

    config_name = "config.json"  # type: ignore[assignment]  # where diffusers keeps the settings

    def __init__(self, mixture: Mixture, training_steps: int):
        super().__init__()  # type: ignore[no-untyped-call]
        shape, levels = mixture.image, mixture.image.levels
        self.mixture = mixture
        self.model = mixture.model
        self.register_to_config(  # type: ignore[no-untyped-call]
            sample_size=shape.height if shape.height == shape.width else [shape.height, shape.width],
            in_channels=shape.channels,
            out_channels=shape.channels,
            training_steps=training_steps,
        )
        self.register_buffer("log_snr", chain_of(mixture.schedule, levels, training_steps).log_snr, persistent=False)
        self.grid = PixelGrid(1 / PixelGrid.reaching_both_ends(levels).scale)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "MergedUNet":  # type: ignore[override]
        """The model of an exported folder.

        Of diffusers' options only `torch_dtype` is used. `trust_code=True` runs a gate's program that comes
        with the folder; a pipeline takes such a model as `from_pretrained(..., unet=model)`.
        """
        settings = read_settings(Path(folder) / "config.json")
        mixture = read_mixture(Path(folder), trust_code=bool(options.get("trust_code", False)))
        model = cls(mixture, int(settings["training_steps"])).eval()
        dtype = options.get("torch_dtype")
        return model if dtype is None else model.to(dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> "MergedUNet":
        """Keep noise levels and thresholds in float64 whatever dtype the weights get: rounding would move them."""
        exact = {name: buffer for name, buffer in self.named_buffers() if buffer.dtype == torch.float64}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            owner, _, own = name.rpartition(".")
            module = self.get_submodule(owner)
            setattr(module, own, buffer.to(getattr(module, own).device))
        return self

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        """Write the folder, as `pipeline.save_pretrained` expects."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_mixture(self.model, self.mixture.image, self.mixture.schedule, place)
        self.save_config(place)

    log_snr: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; the noise levels are float64."""
        return next((each.dtype for each in self.model.parameters()), torch.float32)

    @torch.no_grad()
    def forward(self, sample: Tensor, timestep: Tensor | int, return_dict: bool = True) -> Any:
        """Velocity on diffusers' grid."""
        steps = torch.as_tensor(timestep, device=self.log_snr.device).long().expand(len(sample))
        there = self.log_snr[steps].to(sample.device)
        z, log_snr = self.grid.noisy(sample, there)
        velocity = self.model(z.to(sample.dtype), log_snr.to(sample.dtype)).velocity
        output = self.grid.velocity_back(velocity.double(), sample.double(), there).to(sample.dtype)
        return UNet2DOutput(sample=output) if return_dict else (output,)
