"""The UNet of Dhariwal & Nichol (2021, ADM) with the layer names and numbers of NVlabs' EDM checkpoints.

Written from Karras et al. 2022, appendix F and table 7, from Dhariwal & Nichol, and from the names and shapes of the
tensors. Unlike in the other network, residual sums are not scaled, the embedding scales and shifts, attention has one
head per 64 channels, and the frequencies of the noise level stop short of 1/10000.
"""

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
    Layout,
    PositionalFeatures,
    name_at,
    norm,
)

CHANNELS_PER_HEAD = 64


class AdmLayout(Layout):
    """The constructor arguments of EDM's DhariwalUNet, under its names and with its defaults."""

    model_channels: Count = 192
    channel_mult: list[Count] = Field(default=[1, 2, 3, 4], min_length=1, max_length=8)
    num_blocks: int = Field(default=3, ge=1, le=64)
    attn_resolutions: list[int] = Field(default=[32, 16, 8])

    def attends(self, size: int, channels: int) -> bool:
        """Whether a block has attention. Raises ValueError if the width is not a multiple of a head's."""
        if size not in self.attn_resolutions:
            return False
        if channels % CHANNELS_PER_HEAD:
            raise ValueError(
                f"{channels} channels at {size} pixels are not a multiple of {CHANNELS_PER_HEAD}, a head's"
            )
        return True


class AdmUNet(nn.Module):
    """F(x; c_noise), of one class where the network is conditional."""

    def __init__(self, layout: AdmLayout, label: int | None = None):
        super().__init__()
        self.label = label
        self.style = BlockStyle(
            embedding_channels=layout.embedding_channels,
            dropout=layout.dropout,
            modulates=True,
            channels_per_head=CHANNELS_PER_HEAD,
            projects_skip=False,
        )
        width = layout.model_channels
        self.map_noise = PositionalFeatures(width, includes_last=False)
        self.map_layer0 = nn.Linear(width, layout.embedding_channels)
        self.map_layer1 = nn.Linear(layout.embedding_channels, layout.embedding_channels)
        if layout.label_dim:
            self.map_label = nn.Linear(layout.label_dim, layout.embedding_channels, bias=False)
        skips = self._build_encoder(layout)
        width = self._build_decoder(layout, skips)
        self.out_norm = norm(width, 1e-5)
        self.out_conv = FilteredConv(width, layout.out_channels, 3)

    def _build_encoder(self, layout: AdmLayout) -> list[int]:
        """Adds `enc`; returns the widths of the skip connections."""
        self.enc = nn.ModuleDict()
        width, skips = layout.model_channels * layout.channel_mult[0], []
        for level, factor in enumerate(layout.channel_mult):
            size, outputs = layout.img_resolution >> level, layout.model_channels * factor
            if level == 0:
                self.enc[name_at(size, "conv")] = FilteredConv(layout.in_channels, width, 3)
            else:
                self.enc[name_at(size, "down")] = Block(width, width, self.style, resample="down")
            skips.append(width)
            for i in range(layout.num_blocks):
                attention = layout.attends(size, outputs)
                self.enc[name_at(size, f"block{i}")] = Block(width, outputs, self.style, attention=attention)
                width = outputs
                skips.append(width)
        return skips

    def _build_decoder(self, layout: AdmLayout, skips: list[int]) -> int:
        """Adds `dec`; returns the width at its end."""
        self.dec = nn.ModuleDict()
        width = skips[-1]
        for level, factor in reversed(list(enumerate(layout.channel_mult))):
            size, outputs = layout.img_resolution >> level, layout.model_channels * factor
            if level == len(layout.channel_mult) - 1:
                if width % CHANNELS_PER_HEAD:
                    raise ValueError(
                        f"{width} channels in the middle are not a multiple of {CHANNELS_PER_HEAD}, a head's"
                    )
                self.dec[name_at(size, "in0")] = Block(width, width, self.style, attention=True)
                self.dec[name_at(size, "in1")] = Block(width, width, self.style)
            else:
                self.dec[name_at(size, "up")] = Block(width, width, self.style, resample="up")
            for i in range(layout.num_blocks + 1):
                attention = layout.attends(size, outputs)
                self.dec[name_at(size, f"block{i}")] = Block(
                    width + skips.pop(), outputs, self.style, attention=attention
                )
                width = outputs
        assert not skips
        return width

    def forward(self, x: Images, noise_level: PerItem) -> Images:
        """The raw output for a preconditioned input and c_noise."""
        embedding = self.map_layer1(F.silu(self.map_layer0(self.map_noise(noise_level.to(x.dtype)))))
        if self.label is not None:
            embedding = embedding + self.map_label.weight[:, self.label]
        embedding = F.silu(embedding)
        hidden, skips = x, list[Tensor]()
        for layer in self.enc.values():
            hidden = layer(hidden, embedding) if isinstance(layer, Block) else layer(hidden)
            skips.append(hidden)
        for name, layer in self.dec.items():
            hidden = layer(torch.cat([hidden, skips.pop()], 1) if "_block" in name else hidden, embedding)
        output: Images = self.out_conv(F.silu(self.out_norm(hidden)))
        return output
