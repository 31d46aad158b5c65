"""The UNet of Song et al. (2021, DDPM++ and NCSN++) with the layer names and numbers of NVlabs' EDM checkpoints.

Written from Karras et al. 2022, appendix F and table 7, and from the names and shapes of the tensors; residual sums are
scaled by 1/√2, and resolutions change by a separable filter with stride 2.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from moeframe.shapes import Images, PerItem
from moeframe_pretrained.edm.layers import (
    Block,
    BlockStyle,
    Count,
    FilteredConv,
    FourierFeatures,
    Layout,
    PositionalFeatures,
    name_at,
    norm,
)


class SongLayout(Layout):
    """The constructor arguments of EDM's SongUNet, under its names and with its defaults."""

    model_channels: Count = 128
    channel_mult: list[Count] = Field(default=[1, 2, 2, 2], min_length=1, max_length=8)
    num_blocks: int = Field(default=4, ge=1, le=64)
    attn_resolutions: list[int] = Field(default=[16])
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: Count = 1
    encoder_type: Literal["standard", "residual"] = "standard"
    decoder_type: Literal["standard"] = "standard"
    resample_filter: list[int] = Field(default=[1, 1], min_length=1, max_length=16)

    @property
    def style(self) -> BlockStyle:
        """Of its blocks."""
        return BlockStyle(
            embedding_channels=self.embedding_channels,
            dropout=self.dropout,
            taps=self.resample_filter,
            residual_scale=math.sqrt(0.5),
            eps=1e-6,
        )


class SongUNet(nn.Module):
    """F(x; c_noise) of an EDM, of one class where it is conditional: contract, middle, expand, skip connections."""

    def __init__(self, layout: SongLayout, label: int | None = None):
        super().__init__()
        self.layout, self.label, self.style = layout, label, layout.style
        noise_channels = layout.model_channels * layout.channel_mult_noise
        positional = layout.embedding_type == "positional"
        self.map_noise = (
            PositionalFeatures(noise_channels, includes_last=True) if positional else FourierFeatures(noise_channels)
        )
        if layout.label_dim:
            self.map_label = nn.Linear(layout.label_dim, noise_channels, bias=False)
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
                self.enc[name_at(size, "conv")] = FilteredConv(layout.in_channels, width, 3)
            else:
                self.enc[name_at(size, "down")] = Block(width, width, self.style, resample="down")
                if layout.encoder_type == "residual":
                    taps = layout.resample_filter
                    residual = FilteredConv(raw_width, width, 3, resample="down after", taps=taps)
                    self.enc[name_at(size, "aux_residual")] = residual
                    raw_width = width
            skips.append(width)
            for i in range(layout.num_blocks):
                attention = size in layout.attn_resolutions
                self.enc[name_at(size, f"block{i}")] = Block(
                    width, layout.model_channels * factor, self.style, attention=attention
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
                self.dec[name_at(size, "in0")] = Block(width, width, self.style, attention=True)
                self.dec[name_at(size, "in1")] = Block(width, width, self.style)
            else:
                self.dec[name_at(size, "up")] = Block(width, width, self.style, resample="up")
            for i in range(layout.num_blocks + 1):
                attention = i == layout.num_blocks and size in layout.attn_resolutions
                outputs = layout.model_channels * factor
                self.dec[name_at(size, f"block{i}")] = Block(
                    width + skips.pop(), outputs, self.style, attention=attention
                )
                width = outputs
        assert not skips
        self.dec[name_at(layout.img_resolution, "aux_norm")] = norm(width, 1e-6)
        self.dec[name_at(layout.img_resolution, "aux_conv")] = FilteredConv(width, layout.out_channels, 3)

    def forward(self, x: Images, noise_level: PerItem) -> Images:
        """The raw output for a preconditioned input and c_noise."""
        # EDM exchanges the sine and cosine halves, to agree with older checkpoints
        cosines, sines = self.map_noise(noise_level.to(x.dtype)).chunk(2, 1)
        features = torch.cat([sines, cosines], 1)
        if self.label is not None:
            features = features + math.sqrt(self.layout.label_dim) * self.map_label.weight[:, self.label]
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
