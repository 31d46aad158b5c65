"""The score network of Variational Diffusion Models (Kingma et al. 2021, appendix B), and the ends of its schedule.

One resolution throughout; residual blocks in and as many and one more out, joined by skip connections; attention in the
middle. Layers bear the names of google-research/vdm's checkpoints, with '_' for '.'.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moeframe.errors import CheckpointError
from moeframe.shapes import Images, PerItem

Embedding: TypeAlias = Float[Tensor, "batch _"]
Maps: TypeAlias = Float[Tensor, "batch _ _ _"]
"""Feature maps of any width."""

FOURIER_POWERS = (6, 7)
"""n of the features sin(2^n 2π z) and cos(2^n 2π z) beside the image."""


@dataclass(frozen=True)
class VdmLayout:
    """What a checkpoint's tensors tell of the network that they are of."""

    channels: int
    width: int
    n_blocks: int
    attention: bool
    """Whether every block, not the middle alone, is followed by attention."""
    fourier_features: bool

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], path: Path) -> "VdmLayout":
        """Read from the shapes of the first and last layer and from the blocks' names. Raises CheckpointError."""
        first, last = tensors.get("conv_in.weight"), tensors.get("conv_out.weight")
        if first is None or last is None or first.dim() != 4 or last.dim() != 4:
            raise CheckpointError(
                f"{path} is not a score network of VDM: it lacks the convolutions conv_in and conv_out"
            )
        width, channels = first.shape[0], last.shape[0]
        with_features = channels * (1 + 2 * len(FOURIER_POWERS))
        if first.shape[1] not in (channels, with_features) or width == 0 or width % 32:
            raise CheckpointError(
                f"{path} is not a score network of VDM: conv_in maps {first.shape[1]} channels to {width}, where the "
                f"image's {channels} or, with Fourier features, {with_features} go to a multiple of 32"
            )
        n_blocks = len({name.split(".")[0] for name in tensors if name.startswith("down_block_")})
        attention = any(name.startswith("down_attn_") for name in tensors)
        return cls(channels, width, n_blocks, attention, first.shape[1] == with_features)


class ScoreUNet(nn.Module):
    """Predicts the noise of z from z and the time (γ - γmin) / (γmax - γmin)."""

    def __init__(self, layout: VdmLayout, dropout: float = 0.0):
        super().__init__()
        self.layout = layout
        width, embedding = layout.width, 4 * layout.width
        inputs = layout.channels * (1 + 2 * len(FOURIER_POWERS) * layout.fourier_features)
        # one more for a conditioning number, which is 0 at evaluation
        self.dense0 = nn.Linear(width + 1, embedding)
        self.dense1 = nn.Linear(embedding, embedding)
        self.conv_in = nn.Conv2d(inputs, width, 3, padding=1)

        def add_stage(way: str, i: int, inputs: int) -> None:
            self.add_module(f"{way}_block_{i}", ResnetBlock(inputs, width, embedding, dropout))
            if layout.attention:
                self.add_module(f"{way}_attn_{i}", AttentionBlock(width))

        for i in range(layout.n_blocks):
            add_stage("down", i, width)
        self.mid_block_1 = ResnetBlock(width, width, embedding, dropout)
        self.mid_attn_1 = AttentionBlock(width)
        self.mid_block_2 = ResnetBlock(width, width, embedding, dropout)
        for i in range(layout.n_blocks + 1):
            add_stage("up", i, 2 * width)
        self.GroupNorm_0 = _norm(width)
        self.conv_out = nn.Conv2d(width, layout.channels, 3, padding=1)

    def forward(self, z: Images, time: PerItem) -> Images:
        """The noise ε̂."""
        features = torch.cat([_sinusoids(time.to(z.dtype), self.layout.width), z.new_zeros(len(z), 1)], 1)
        embedding = F.silu(self.dense1(F.silu(self.dense0(features))))
        hidden = self.conv_in(_with_fourier_features(z) if self.layout.fourier_features else z)
        skips = [hidden]
        for i in range(self.layout.n_blocks):
            hidden = self._stage("down", i, hidden, embedding)
            skips.append(hidden)
        hidden = self.mid_attn_1(self.mid_block_1(hidden, embedding))
        hidden = self.mid_block_2(hidden, embedding)
        for i in range(self.layout.n_blocks + 1):
            hidden = self._stage("up", i, torch.cat([hidden, skips.pop()], 1), embedding)
        output: Images = self.conv_out(F.silu(self.GroupNorm_0(hidden)))
        # the network learns the difference from z, which at pure noise is the noise
        return z + output

    def _stage(self, way: str, i: int, hidden: Maps, embedding: Embedding) -> Maps:
        output: Maps = self.get_submodule(f"{way}_block_{i}")(hidden, embedding)
        if self.layout.attention:
            attended: Maps = self.get_submodule(f"{way}_attn_{i}")(output)
            return attended
        return output


class ResnetBlock(nn.Module):
    """Two convolutions, between them the embedding added, around a skip."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        self.GroupNorm_0 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.cond_proj = nn.Linear(embedding, outputs, bias=False)
        self.GroupNorm_1 = _norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Linear(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, hidden: Maps, embedding: Embedding) -> Maps:
        """The block's output."""
        update = self.conv1(F.silu(self.GroupNorm_0(hidden))) + self.cond_proj(embedding)[:, :, None, None]
        update = self.conv2(self.dropout(F.silu(self.GroupNorm_1(update))))
        output: Maps = self.nin_shortcut(hidden.movedim(1, -1)).movedim(-1, 1) + update
        return output


class AttentionBlock(nn.Module):
    """Self-attention with one head over all positions, around a skip."""

    def __init__(self, channels: int):
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: Maps) -> Maps:
        """Residual update of `hidden`."""
        positions = self.GroupNorm_0(hidden).flatten(2).transpose(1, 2)
        attended = F.scaled_dot_product_attention(self.q(positions), self.k(positions), self.v(positions))
        update: Maps = self.proj_out(attended).transpose(1, 2).reshape(hidden.shape)
        return hidden + update


def schedule_ends(gamma: Mapping[str, Tensor], fixed: tuple[float, float]) -> tuple[float, float]:
    """γ(0) and γ(1) from the tensors of the noise schedule; `fixed` when it has none. Raises KeyError for others.

    γ(t) is b + |w| t, or b₁ + |w₁| t + |w₃| tanh-like(|w₂| (2t - 1) + b₂) / 1024 (VDM, appendix H).
    """
    if not gamma:
        return fixed
    times = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    parts = {name: tensor.double() for name, tensor in gamma.items()}
    if set(parts) == {"w", "b"}:
        ends = parts["b"] + parts["w"].abs() * times
    else:
        kernels = [parts[f"l{i}/kernel"].abs() for i in (1, 2, 3)]
        ends = times @ kernels[0] + parts["l1/bias"]
        inner = 2 * (((2 * times - 1) @ kernels[1] + parts["l2/bias"]).sigmoid() - 0.5)
        ends = ends + inner @ kernels[2] / kernels[1].shape[1]
    low, high = ends.flatten().tolist()
    return low, high


def _sinusoids(time: PerItem, width: int) -> Embedding:
    """Sines and cosines of 1000 t at frequencies from 1 down to 1/10000, both included."""
    steps = torch.arange(width // 2, dtype=time.dtype, device=time.device) / (width // 2 - 1)
    angles = 1000 * time[:, None] * 10000**-steps
    return torch.cat([angles.sin(), angles.cos()], 1)


def _with_fourier_features(z: Images) -> Maps:
    """The image, then the sines and then the cosines, each channel's powers side by side."""
    powers = torch.tensor([2.0**n for n in FOURIER_POWERS], dtype=z.dtype, device=z.device)
    angles = (2 * math.pi * powers[:, None, None] * z[:, :, None]).flatten(1, 2)
    return torch.cat([z, angles.sin(), angles.cos()], 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
