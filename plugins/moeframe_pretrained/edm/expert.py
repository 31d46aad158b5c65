"""Networks of EDM (https://arxiv.org/abs/2206.00364) as experts, from NVlabs' pickles; nothing in them is executed."""

import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from moeframe.diffusion import edm_input, velocity_from_edm
from moeframe.errors import CheckpointError
from moeframe.interfaces.component import ImageShape
from moeframe.shapes import Images, LogSnr
from moeframe_pretrained.edm.adm_network import AdmLayout, AdmUNet
from moeframe_pretrained.edm.pickle_file import PickledModule, read_pickled_network
from moeframe_pretrained.edm.song_network import SongLayout, SongUNet
from moeframe_pretrained.pixel_grid import PixelGrid
from moeframe_pretrained.pretrained import PretrainedExpert, sha256_of
from moeframe_pretrained.weights import with_weights


class EdmExpert(PretrainedExpert):
    """An EDM network (DDPM++, NCSN++ or ADM) from NVlabs' pickle; nothing in it is executed."""

    class Config(PretrainedExpert.Config):
        type: Literal["edm"] = "edm"
        sigma_min: float = Field(
            default=0.002, gt=0, description="least noise, as EDM's samplers use it; checkpoints state no bound"
        )
        sigma_max: float = Field(default=80.0, gt=0, description="most noise, as EDM's samplers use it")
        label: int | None = Field(
            default=None, ge=0, description="class for which a class-conditional network is the expert"
        )

        @field_validator("sigma_max")
        @classmethod
        def _above_sigma_min(cls, value: float, info: Any) -> float:
            low = info.data.get("sigma_min", 0)
            if value <= low:
                raise ValueError(f"sigma_max {value:g} must be above sigma_min {low:g}")
            return value

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        pickled = read_pickled_network(config.path)
        try:
            self._preconditioning = _Preconditioning.read(pickled, config.path)
            layout, tensors = _read_layout(pickled, config.path), pickled.child("model").tensors()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
            raise CheckpointError(f"{config.path} is not a network of EDM ({type(cause).__name__}: {cause})") from cause
        _check_image(layout, image, config.path)
        _check_label(layout, config)
        # labels of training's augmentations, which no sampling gives
        tensors.pop("map_augment.weight", None)
        self.network: nn.Module = with_weights(lambda: _network(layout, config), tensors, config.path)
        self.weights_sha256 = sha256_of([config.path])
        self._grid = PixelGrid.reaching_both_ends(image.levels)
        low, high = self.log_snr_range
        if low >= high:
            raise CheckpointError(
                f"{config.path}: no noise level is above sigma_min ({config.sigma_min:g}) and below sigma_max "
                f"({config.sigma_max:g}) and within the checkpoint's own bounds; set them further apart"
            )

    def family_licence(self) -> str:
        """As the authors state it for their pre-trained networks."""
        return "CC BY-NC-SA 4.0 (non-commercial)"

    def levels_at(self) -> str:
        """That of the checkpoint."""
        return self._grid.what

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """From sigma_max to sigma_min, or the checkpoint's own bounds where those are narrower."""
        most = min(self.config.sigma_max, self._preconditioning.sigma_max)
        least = max(self.config.sigma_min, self._preconditioning.sigma_min)
        shift = self._grid.log_snr_shift
        return (-2 * math.log(most) - shift, -2 * math.log(least) - shift)

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity from the raw output F(c_in y; ln(σ) / 4), σ being the noise on EDM's pixel grid."""
        sigma_data = self._preconditioning.sigma_data
        z_there, there = self._grid.noisy(z, log_snr)
        output = self.network(edm_input(z_there, there, sigma_data), -there / 8)
        return self._grid.velocity_back(velocity_from_edm(output, z_there, there, sigma_data), z, log_snr)


class _Preconditioning(BaseModel):
    """Settings of the checkpoint's EDMPrecond."""

    model_config = ConfigDict(frozen=True, strict=True)

    sigma_min: float = Field(ge=0)
    sigma_max: float = Field(gt=0)
    sigma_data: float = Field(gt=0, allow_inf_nan=False)

    @classmethod
    def read(cls, pickled: PickledModule, path: Path) -> "_Preconditioning":
        if pickled.class_name != "EDMPrecond":
            raise CheckpointError(
                f"{path} holds a network preconditioned by {pickled.class_name}; moeframe reads only EDMPrecond"
            )
        return cls(**{name: pickled.attributes[name] for name in cls.model_fields})


EdmLayout: TypeAlias = SongLayout | AdmLayout
LAYOUTS: dict[str, type[EdmLayout]] = {"SongUNet": SongLayout, "DhariwalUNet": AdmLayout}


def _read_layout(pickled: PickledModule, path: Path) -> EdmLayout:
    """The layout of the network inside. Raises CheckpointError naming a layout that moeframe lacks."""
    unet = pickled.child("model")
    if unet.class_name not in LAYOUTS:
        raise CheckpointError(
            f"{path} holds a network of class {unet.class_name}; moeframe has {' and '.join(LAYOUTS)} alone"
        )
    try:
        return LAYOUTS[unet.class_name](**unet.constructor_arguments)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointError(f"{path} holds a {unet.class_name} that moeframe cannot build: {wrong}") from None


def _network(layout: EdmLayout, config: EdmExpert.Config) -> SongUNet | AdmUNet:
    try:
        return SongUNet(layout, config.label) if isinstance(layout, SongLayout) else AdmUNet(layout, config.label)
    except ValueError as error:
        raise CheckpointError(f"{config.path} holds a network that moeframe cannot build: {error}") from None


def _check_label(layout: EdmLayout, config: EdmExpert.Config) -> None:
    """Require a class for a conditional network and none for an unconditional one: experts see no labels."""
    if layout.label_dim and config.label is None:
        raise CheckpointError(
            f"{config.path} is conditional on {layout.label_dim} classes, and an expert sees the noisy image and its "
            f"noise level alone; choose one class for this expert, label: 0 .. {layout.label_dim - 1}"
        )
    if config.label is not None and config.label >= layout.label_dim:
        has = f"classes 0 .. {layout.label_dim - 1}" if layout.label_dim else "no classes; leave label out"
        raise CheckpointError(f"{config.path}: label {config.label}, but the network has {has}")


def _check_image(layout: EdmLayout, image: ImageShape, path: Path) -> None:
    size = layout.img_resolution
    theirs = (layout.in_channels, size, size)
    if theirs != image.tensor_shape or layout.out_channels != layout.in_channels:
        raise CheckpointError(
            f"{path} is a network for images of {layout.in_channels} channels and {size}x{size} pixels, not of the "
            f"data's {image.channels} channels and {image.height}x{image.width}"
        )
