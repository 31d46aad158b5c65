"""Layers of both networks of EDM's checkpoints, under their names: blocks, filtered convolutions, features.

Written from Karras et al. 2022, appendix F, from Dhariwal & Nichol 2021, and from the names and shapes of the tensors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from moeframe.shapes import PerItem

Embedding: TypeAlias = Float[Tensor, "batch _"]
Maps: TypeAlias = Float[Tensor, "batch _ _ _"]
"""Feature maps of any width and resolution."""


Count: TypeAlias = Annotated[int, Field(ge=1, le=4096)]


class Layout(BaseModel):
    """The constructor arguments that EDM's networks have in common, under its names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    img_resolution: Count
    in_channels: Count
    out_channels: Count
    label_dim: int = Field(default=0, ge=0, le=100_000)
    augment_dim: int = Field(default=0, ge=0)
    model_channels: Count
    channel_mult_emb: Count = 4
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_dropout: float = 0

    @property
    def embedding_channels(self) -> int:
        """Width of the embedding that every block sees."""
        return self.model_channels * self.channel_mult_emb


@dataclass(frozen=True)
class BlockStyle:
    """Differences between the blocks of the two networks."""

    embedding_channels: int
    dropout: float
    taps: Sequence[int] = (1, 1)
    modulates: bool = False
    """The embedding scales and shifts, instead of being added."""
    residual_scale: float = 1.0
    """Factor of each residual sum."""
    channels_per_head: int | None = None
    """None: attention has one head."""
    projects_skip: bool = True
    """A skip connection that resamples has a convolution even where the width stays."""
    eps: float = 1e-5


class Block(nn.Module):
    """Two convolutions, between them the embedding, around a skip; then attention if configured."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: BlockStyle,
        *,
        resample: Literal["none", "up", "down"] = "none",
        attention: bool = False,
    ):
        super().__init__()
        self.style = style
        taps = style.taps
        self.norm0 = norm(inputs, style.eps)
        self.conv0 = FilteredConv(inputs, outputs, 3, resample=resample, taps=taps)
        self.affine = nn.Linear(style.embedding_channels, outputs * (2 if style.modulates else 1))
        self.norm1 = norm(outputs, style.eps)
        self.dropout = nn.Dropout(style.dropout)
        self.conv1 = FilteredConv(outputs, outputs, 3)
        changes = inputs != outputs or resample != "none"
        kernel = 1 if style.projects_skip or inputs != outputs else 0
        self.skip = FilteredConv(inputs, outputs, kernel, resample=resample, taps=taps) if changes else nn.Identity()
        self.attends = attention
        if attention:
            self.heads = 1 if style.channels_per_head is None else outputs // style.channels_per_head
            self.norm2 = norm(outputs, style.eps)
            self.qkv = FilteredConv(outputs, 3 * outputs, 1)
            self.proj = FilteredConv(outputs, outputs, 1)

    def forward(self, hidden: Maps, embedding: Embedding) -> Maps:
        """The block's output, at its resolution."""
        update = self.conv0(F.silu(self.norm0(hidden)))
        parameters = self.affine(embedding)[:, :, None, None]
        if self.style.modulates:
            scale, shift = parameters.chunk(2, 1)
            update = self.norm1(update) * (scale + 1) + shift
        else:
            update = self.norm1(update + parameters)
        update = self.conv1(self.dropout(F.silu(update)))
        output: Maps = (self.skip(hidden) + update) * self.style.residual_scale
        return (output + self._attended(output)) * self.style.residual_scale if self.attends else output

    def _attended(self, hidden: Maps) -> Maps:
        # each channel's query, key and value are adjacent
        batch, channels, height, width = hidden.shape
        qkv = self.qkv(self.norm2(hidden)).view(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = qkv.permute(3, 0, 1, 4, 2)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(hidden.shape)
        output: Maps = self.proj(attended)
        return output


class FilteredConv(nn.Module):
    """A convolution that keeps the size; before it a resampling by 2, or after it with `down after`.

    With kernel 0 it resamples only.
    """

    resample_filter: Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

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
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(outputs)) if kernel else None
        if resample != "none":
            self.register_buffer("resample_filter", torch.empty(1, 1, len(taps), len(taps)))

    def forward(self, hidden: Maps) -> Maps:
        """The convolved maps."""
        margin = 0 if self.weight is None else self.weight.shape[-1] // 2
        if self.resample == "down after":
            assert self.weight is not None
            assert self.bias is not None
            # the filter sees what the convolution gives beyond the border, without its bias
            convolved = F.conv2d(hidden, self.weight, padding=margin + self._reach)
            return self._filtered_down(convolved, 0) + self.bias[:, None, None]
        resampled = self._resampled(hidden)
        return resampled if self.weight is None else F.conv2d(resampled, self.weight, self.bias, padding=margin)

    @property
    def _reach(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _resampled(self, hidden: Maps) -> Maps:
        if self.resample == "none":
            return hidden
        if self.resample == "down":
            return self._filtered_down(hidden, self._reach)
        filters = 4 * self.resample_filter.repeat(hidden.shape[1], 1, 1, 1)
        return F.conv_transpose2d(hidden, filters, stride=2, padding=self._reach, groups=hidden.shape[1])

    def _filtered_down(self, hidden: Maps, padding: int) -> Maps:
        filters = self.resample_filter.repeat(hidden.shape[1], 1, 1, 1)
        return F.conv2d(hidden, filters, stride=2, padding=padding, groups=hidden.shape[1])


class PositionalFeatures(nn.Module):
    """Cosines and sines of c_noise at frequencies from 1 down to 1/10000, which is included or the next one after."""

    def __init__(self, channels: int, *, includes_last: bool):
        super().__init__()
        self.n_frequencies = channels // 2
        self.steps_to_last = self.n_frequencies - (1 if includes_last else 0)

    def forward(self, noise_level: PerItem) -> Embedding:
        """The features, cosines first."""
        steps = torch.arange(self.n_frequencies, dtype=noise_level.dtype, device=noise_level.device)
        return _waves(noise_level, 10000 ** -(steps / self.steps_to_last))


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


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


def name_at(size: int, part: str) -> str:
    """EDM's name of a layer at a resolution."""
    return f"{size}x{size}_{part}"
