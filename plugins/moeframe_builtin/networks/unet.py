"""A UNet with noise-level modulation, for images of any size and channel count.

Residual blocks with scale-shift modulation and attention at chosen resolutions as in Dhariwal & Nichol 2021; the noise
level enters as Fourier features of the log-SNR.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, Field, field_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moeframe.diffusion import edm_input, velocity_from_edm, velocity_from_image, velocity_from_noise
from moeframe.interfaces.component import ImageShape
from moeframe.shapes import Images, LogSnr

Embedding: TypeAlias = Float[Tensor, "batch embedding"]
Maps: TypeAlias = Float[Tensor, "batch _ _ _"]
"""Feature maps of any width and resolution."""

AfterBlock: TypeAlias = Callable[[int, Tensor], Tensor]
"""Function of the maps after a block, by the block's number among the later layers."""


class UNetSettings(BaseModel):
    """Size of the network, and what it predicts."""

    channels: int = Field(default=32, ge=4, description="width at full resolution")
    channel_multipliers: list[Annotated[int, Field(ge=1)]] = Field(
        default=[1, 2], min_length=1, description="width factor per resolution"
    )
    blocks: int = Field(default=1, ge=1, description="residual blocks per resolution")
    attention_resolutions: list[int] = Field(default=[], description="image heights, in pixels, that get attention")
    attention_heads: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    prediction: Literal["velocity", "noise", "image", "edm"] = Field(
        default="velocity", description="what the network itself predicts; converted to velocity at its boundary"
    )
    sigma_data: float = Field(default=0.5, gt=0, description="σ_data of the EDM preconditioning")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute blocks in the backward pass to save memory"
    )

    @field_validator("attention_heads")
    @classmethod
    def _divides(cls, value: int, info: Any) -> int:
        channels = info.data.get("channels", value)
        if channels % value:
            raise ValueError(f"attention_heads {value} must divide channels {channels}")
        return value


class HoldsUNet:
    """A module that is a UNet and nothing else, so that it can become a trunk."""

    network: "UNet"


class UNet(nn.Module):
    """The network: contract, middle, expand, with a skip connection per block."""

    def __init__(self, config: UNetSettings, image: ImageShape):
        super().__init__()
        self.config = config
        width = config.channels
        embedding = 4 * width
        self.embed = NoiseLevelEmbedding(embedding)
        self.stem = nn.Conv2d(image.channels, width, 3, padding=1)

        def block(inputs: int, outputs: int, height: int) -> Block:
            return Block(inputs, outputs, embedding, config, attention=height in config.attention_resolutions)

        self.contract = nn.ModuleList()
        self.expand = nn.ModuleList()
        height, channels = image.height, width
        skips = [width]
        heights = []
        for i, factor in enumerate(config.channel_multipliers):
            if i > 0:
                self.contract.append(Downsample(channels))
                skips.append(channels)
                height = (height + 1) // 2
            heights.append(height)
            for _ in range(config.blocks):
                self.contract.append(block(channels, factor * width, height))
                channels = factor * width
                skips.append(channels)
        self.middle = block(channels, channels, height)
        for i, factor in reversed(list(enumerate(config.channel_multipliers))):
            for _ in range(config.blocks + 1):
                self.expand.append(block(channels + skips.pop(), factor * width, heights[i]))
                channels = factor * width
            if i > 0:
                self.expand.append(Upsample(channels))
        assert not skips
        self.head = nn.Sequential(
            _norm(channels), nn.SiLU(), _zeroed(nn.Conv2d(channels, image.channels, 3, padding=1))
        )

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """The native prediction."""
        hidden, skips, embedding = self.begin(z, log_snr, len(self.contract))
        return self.finish(hidden, skips, embedding)

    def begin(self, z: Images, log_snr: LogSnr, depth: int) -> tuple[Maps, list[Maps], Embedding]:
        """The first `depth` contracting layers: the maps after them, those of the skip connections, the embedding."""
        embedding = self.embed(log_snr.to(z.dtype))
        hidden = self.stem(z)
        skips = [hidden]
        for layer in self.contract[:depth]:
            hidden = self._run(layer, hidden, embedding)
            skips.append(hidden)
        return hidden, skips, embedding

    def finish(
        self,
        hidden: Maps,
        skips: list[Maps],
        embedding: Embedding,
        after: AfterBlock | None = None,
        *,
        recompute: bool = True,
    ) -> Images:
        """The layers that `begin` left, with `after` applied to the maps after each block of them.

        `recompute: False` keeps all activations: a backward pass that computes layers again must find their weights.
        """
        done, block = len(skips) - 1, 0
        skips = list(skips)
        for layer in self.contract[done:]:
            hidden = self._run(layer, hidden, embedding, recompute=recompute)
            if after is not None and isinstance(layer, Block):
                hidden, block = after(block, hidden), block + 1
            skips.append(hidden)
        hidden = self._run(self.middle, hidden, embedding, recompute=recompute)
        if after is not None:
            hidden, block = after(block, hidden), block + 1
        for layer in self.expand:
            if isinstance(layer, Upsample):
                hidden = layer(hidden, skips[-1].shape[-2:])
                continue
            hidden = self._run(layer, torch.cat([hidden, skips.pop()], 1), embedding, recompute=recompute)
            if after is not None:
                hidden, block = after(block, hidden), block + 1
        output: Images = self.head(hidden)
        return output

    def native_input(self, z: Images, log_snr: LogSnr) -> Images:
        """Input of the network for z."""
        return edm_input(z, log_snr, self.config.sigma_data) if self.config.prediction == "edm" else z

    def velocity(self, output: Images, z: Images, log_snr: LogSnr) -> Images:
        """Velocity from the native prediction."""
        match self.config.prediction:
            case "velocity":
                return output
            case "noise":
                return velocity_from_noise(output, z, log_snr)
            case "image":
                return velocity_from_image(output, z, log_snr)
            case "edm":
                return velocity_from_edm(output, z, log_snr, self.config.sigma_data)

    def _run(self, layer: nn.Module, hidden: Maps, embedding: Embedding, *, recompute: bool = True) -> Maps:
        if recompute and self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            output: Maps = checkpoint(layer, hidden, embedding, use_reentrant=False)
        else:
            output = layer(hidden, embedding)
        return output


class NoiseLevelEmbedding(nn.Module):
    """Fourier features of λ with periods from 80 down to 0.8, then a two-layer MLP."""

    frequencies: Tensor

    def __init__(self, width: int, n_frequencies: int = 16):
        super().__init__()
        periods = torch.logspace(math.log10(80.0), math.log10(0.8), n_frequencies)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * n_frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, log_snr: LogSnr) -> Embedding:
        """The embedding that modulates every block."""
        angles = log_snr[:, None] * self.frequencies.to(log_snr.dtype)
        embedding: Embedding = self.mlp(torch.cat([angles.sin(), angles.cos()], 1))
        return embedding


class Block(nn.Module):
    """Two convolutions, the second modulated by the noise level, around a skip; then attention if configured."""

    def __init__(self, inputs: int, outputs: int, embedding: int, config: UNetSettings, *, attention: bool):
        super().__init__()
        self.outputs = outputs
        self.first = nn.Sequential(_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm = _norm(outputs)
        self.second = nn.Sequential(
            nn.SiLU(), nn.Dropout(config.dropout), _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs, config.attention_heads) if attention else None

    def forward(self, hidden: Maps, embedding: Embedding) -> Maps:
        """Residual update of `hidden`."""
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        update = self.second(self.norm(self.first(hidden)) * (1 + scale) + shift)
        output: Maps = self.skip(hidden) + update
        return output if self.attention is None else self.attention(output)


class Attention(nn.Module):
    """Self-attention over all positions of the image."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, hidden: Maps) -> Maps:
        """Residual update of `hidden`."""
        batch, channels, height, width = hidden.shape
        qkv = self.to_qkv(self.norm(hidden)).view(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(batch, channels, height, width)
        output: Maps = hidden + self.out(attended)
        return output


class Downsample(nn.Module):
    """Half the resolution, rounding up."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Maps, embedding: Embedding) -> Maps:  # noqa: ARG002
        """Strided convolution; the embedding is taken so that every contracting layer is called alike."""
        output: Maps = self.convolution(hidden)
        return output


class Upsample(nn.Module):
    """Back to the resolution of the next skip connection, whatever its parity."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Maps, size: torch.Size) -> Maps:
        """Nearest-neighbour upsampling to `size`, then a convolution."""
        output: Maps = self.convolution(F.interpolate(hidden, size=tuple(size), mode="nearest"))
        return output


def _norm(channels: int) -> nn.GroupNorm:
    groups = max(n for n in range(1, min(32, channels // 4) + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero weights, so that a block starts as the identity and the network as zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
