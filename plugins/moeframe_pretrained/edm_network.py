"""The UNet of Song et al. (2021, DDPM++ and NCSN++) with the layer names and numbers of NVlabs' EDM checkpoints.

Written from Karras et al. 2022, appendix F and table 7, and from the names and shapes of the tensors; residual sums are
scaled by 1/√2, and resolutions change by a separable filter with stride 2.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from moeframe.shapes import Images, PerItem

Embedding: TypeAlias = Float[Tensor, "batch _"]
Maps: TypeAlias = Float[Tensor, "batch _ _ _"]
"""Feature maps of any width and resolution."""

Count: TypeAlias = Annotated[int, Field(ge=1, le=4096)]


class SongLayout(BaseModel):
    """The constructor arguments of EDM's SongUNet, under its names and with its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    img_resolution: Count
    in_channels: Count
    out_channels: Count
    label_dim: int = Field(default=0, ge=0)
    augment_dim: int = Field(default=0, ge=0)
    model_channels: Count = 128
    channel_mult: list[Count] = Field(default=[1, 2, 2, 2], min_length=1, max_length=8)
    channel_mult_emb: Count = 4
    num_blocks: int = Field(default=4, ge=1, le=64)
    attn_resolutions: list[int] = [16]
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_dropout: float = 0
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: Count = 1
    encoder_type: Literal["standard", "residual"] = "standard"
    decoder_type: Literal["standard"] = "standard"
    resample_filter: list[int] = Field(default=[1, 1], min_length=1, max_length=16)

    @property
    def embedding_channels(self) -> int:
        """Width of the embedding that every block sees."""
        return self.model_channels * self.channel_mult_emb


class SongUNet(nn.Module):
    """F(x; c_noise) of an unconditional EDM: contract, middle, expand, with a skip connection per block."""

    def __init__(self, layout: SongLayout):
        super().__init__()
        self.layout = layout
        noise_channels = layout.model_channels * layout.channel_mult_noise
        positional = layout.embedding_type == "positional"
        self.map_noise = PositionalFeatures(noise_channels) if positional else FourierFeatures(noise_channels)
        self.map_layer0 = nn.Linear(noise_channels, layout.embedding_channels)
        self.map_layer1 = nn.Linear(layout.embedding_channels, layout.embedding_channels)
        skips = self._build_encoder(layout)
        self._build_decoder(layout, skips)

    def _build_encoder(self, layout: SongLayout) -> list[int]:
        """Adds `enc`; returns the widths of the skip connections."""
        self.enc = nn.ModuleDict()
        width, skips = layout.model_channels, []
        raw_width = layout.in_channels
        for level, factor in enumerate(layout.channel_mult):
            size = layout.img_resolution >> level
            if level == 0:
                self.enc[_name(size, "conv")] = FilteredConv(layout.in_channels, width, 3)
            else:
                self.enc[_name(size, "down")] = Block(width, width, layout, resample="down")
                if layout.encoder_type == "residual":
                    taps = layout.resample_filter
                    residual = FilteredConv(raw_width, width, 3, resample="down after", taps=taps)
                    self.enc[_name(size, "aux_residual")] = residual
                    raw_width = width
            skips.append(width)
            for i in range(layout.num_blocks):
                attention = size in layout.attn_resolutions
                self.enc[_name(size, f"block{i}")] = Block(
                    width, layout.model_channels * factor, layout, attention=attention
                )
                width = layout.model_channels * factor
                skips.append(width)
        return skips

    def _build_decoder(self, layout: SongLayout, skips: list[int]) -> None:
        self.dec = nn.ModuleDict()
        width = skips[-1]
        for level, factor in reversed(list(enumerate(layout.channel_mult))):
            size = layout.img_resolution >> level
            if level == len(layout.channel_mult) - 1:
                self.dec[_name(size, "in0")] = Block(width, width, layout, attention=True)
                self.dec[_name(size, "in1")] = Block(width, width, layout)
            else:
                self.dec[_name(size, "up")] = Block(width, width, layout, resample="up")
            for i in range(layout.num_blocks + 1):
                attention = i == layout.num_blocks and size in layout.attn_resolutions
                outputs = layout.model_channels * factor
                self.dec[_name(size, f"block{i}")] = Block(width + skips.pop(), outputs, layout, attention=attention)
                width = outputs
        assert not skips
        self.dec[_name(layout.img_resolution, "aux_norm")] = _norm(width)
        self.dec[_name(layout.img_resolution, "aux_conv")] = FilteredConv(width, layout.out_channels, 3)

    def forward(self, x: Images, noise_level: PerItem) -> Images:
        """The raw output for a preconditioned input and c_noise."""
        # EDM exchanges the sine and cosine halves, to agree with older checkpoints
        cosines, sines = self.map_noise(noise_level.to(x.dtype)).chunk(2, 1)
        features = torch.cat([sines, cosines], 1)
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(features))))
        hidden, raw = x, x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("aux_residual"):
                hidden = raw = skips[-1] = (hidden + layer(raw)) * math.sqrt(0.5)
            else:
                hidden = layer(hidden, embedding) if isinstance(layer, Block) else layer(hidden)
                skips.append(hidden)
        for name, layer in self.dec.items():
            if isinstance(layer, Block):
                inputs = torch.cat([hidden, skips.pop()], 1) if "_block" in name else hidden
                hidden = layer(inputs, embedding)
            else:
                hidden = layer(hidden) if name.endswith("aux_norm") else layer(F.silu(hidden))
        return hidden


class Block(nn.Module):
    """Two convolutions, between them the embedding added, around a skip; then attention with one head where asked."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layout: SongLayout,
        *,
        resample: Literal["none", "up", "down"] = "none",
        attention: bool = False,
    ):
        super().__init__()
        taps = layout.resample_filter
        self.norm0 = _norm(inputs)
        self.conv0 = FilteredConv(inputs, outputs, 3, resample=resample, taps=taps)
        self.affine = nn.Linear(layout.embedding_channels, outputs)
        self.norm1 = _norm(outputs)
        self.dropout = nn.Dropout(layout.dropout)
        self.conv1 = FilteredConv(outputs, outputs, 3)
        changes = inputs != outputs or resample != "none"
        self.skip = FilteredConv(inputs, outputs, 1, resample=resample, taps=taps) if changes else nn.Identity()
        self.attends = attention
        if attention:
            self.norm2 = _norm(outputs)
            self.qkv = FilteredConv(outputs, 3 * outputs, 1)
            self.proj = FilteredConv(outputs, outputs, 1)

    def forward(self, hidden: Maps, embedding: Embedding) -> Maps:
        """The block's output, at its resolution."""
        update = self.conv0(F.silu(self.norm0(hidden))) + self.affine(embedding)[:, :, None, None]
        update = self.conv1(self.dropout(F.silu(self.norm1(update))))
        output: Maps = (self.skip(hidden) + update) * math.sqrt(0.5)
        return (output + self._attended(output)) * math.sqrt(0.5) if self.attends else output

    def _attended(self, hidden: Maps) -> Maps:
        # each channel's query, key and value lie side by side
        batch, channels, height, width = hidden.shape
        qkv = self.qkv(self.norm2(hidden)).view(batch, channels, 3, height * width)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(hidden.shape)
        output: Maps = self.proj(attended)
        return output


class FilteredConv(nn.Module):
    """A convolution that keeps the size; before it a resampling by 2, or after it with `down after`."""

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        resample: Literal["none", "up", "down", "down after"] = "none",
        taps: Sequence[int] = (1, 1),
    ):
        super().__init__()
        self.resample = resample
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        if resample != "none":
            self.register_buffer("resample_filter", torch.empty(1, 1, len(taps), len(taps)))

    def forward(self, hidden: Maps) -> Maps:
        """The convolved maps."""
        margin = self.weight.shape[-1] // 2
        if self.resample == "none":
            return F.conv2d(hidden, self.weight, self.bias, padding=margin)
        reach = (self.resample_filter.shape[-1] - 1) // 2
        if self.resample == "down after":
            # the filter sees what the convolution gives beyond the border, without its bias
            convolved = F.conv2d(hidden, self.weight, padding=margin + reach)
            return self._filtered_down(convolved, 0) + self.bias[:, None, None]
        if self.resample == "down":
            resampled = self._filtered_down(hidden, reach)
        else:
            filters = 4 * self.resample_filter.repeat(hidden.shape[1], 1, 1, 1)
            resampled = F.conv_transpose2d(hidden, filters, stride=2, padding=reach, groups=hidden.shape[1])
        return F.conv2d(resampled, self.weight, self.bias, padding=margin)

    def _filtered_down(self, hidden: Maps, padding: int) -> Maps:
        filters = self.resample_filter.repeat(hidden.shape[1], 1, 1, 1)
        return F.conv2d(hidden, filters, stride=2, padding=padding, groups=hidden.shape[1])


class PositionalFeatures(nn.Module):
    """Cosines and sines of c_noise at frequencies from 1 down to 1/10000, both included."""

    def __init__(self, channels: int):
        super().__init__()
        self.n_frequencies = channels // 2

    def forward(self, noise_level: PerItem) -> Embedding:
        """The features, cosines first."""
        steps = torch.arange(self.n_frequencies, dtype=noise_level.dtype, device=noise_level.device)
        return _waves(noise_level, 10000 ** -(steps / (self.n_frequencies - 1)))


class FourierFeatures(nn.Module):
    """Cosines and sines of c_noise at the checkpoint's random frequencies."""

    freqs: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels // 2))

    def forward(self, noise_level: PerItem) -> Embedding:
        """The features, cosines first."""
        return _waves(noise_level, 2 * math.pi * self.freqs)


def _waves(noise_level: PerItem, frequencies: Float[Tensor, " n"]) -> Embedding:
    angles = noise_level[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def _name(size: int, part: str) -> str:
    return f"{size}x{size}_{part}"
