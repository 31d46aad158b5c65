"""Dequantisation: integer levels become points in their bins, so that a density can bound a probability.

With x̃ ~ q(x̃ | x) inside the bin of x, which is 2/L wide, -log P(x) <= E[-log p(x̃)] - H(q), by Jensen's inequality.

Theis et al. 2016, https://arxiv.org/abs/1511.01844; truncated normal, Zheng et al. 2023,
https://arxiv.org/abs/2305.03935.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from moeframe.randomness import Trajectories
from moeframe.shapes import Images, Levels

Dequantisation: TypeAlias = Literal["uniform", "truncated_normal"]
"""The distribution of a level over its bin."""


@dataclass(frozen=True)
class Dequantised:
    """Pixels inside the bins of their levels, float64, and the cost in bits of choosing them."""

    pixels: Images
    bits_per_dim: float
    """-H(q): what is added to -log2 p(x̃), bits/dim. Positive for narrow bins: log2(L/2) for `uniform`."""


def dequantise(levels: Levels, n_levels: int, how: Dequantisation, log_snr: float, items: Trajectories) -> Dequantised:
    """One draw of x̃ for each image, on the device of `levels`; each image draws from its own stream.

    `uniform` spreads a level evenly over its bin. `truncated_normal` adds the noise that z has at `log_snr`, cut off at
    the ends of the bin (Zheng et al. 2023, arXiv 2305.03935): what the denoiser has seen of data at that noise level.
    """
    # float64: float32 would misplace the centre of a bin of 32768 levels by a 500th of its width
    centres = (2 * levels.double() + 1) / n_levels - 1
    units = _units(levels, items)
    half_bin = 1 / n_levels
    if how == "uniform":
        return Dequantised(centres + half_bin * units, -math.log2(2 * half_bin))
    noise_scale = math.exp(-log_snr / 2)  # σ/α
    reach = half_bin / noise_scale
    entropy = math.log(noise_scale) + truncated_normal_entropy(reach)
    return Dequantised(centres + noise_scale * truncated_normal(units, reach), -entropy / math.log(2))


def truncated_normal(units: Tensor, reach: float) -> Tensor:
    """Standard normal noise cut off at ± `reach` from values uniform on (-1, 1), by the inverse distribution function.

    The error function is odd and so is its inverse, hence nothing cancels: neither for a reach far below one, where the
    noise becomes uniform, nor far above, where it becomes normal.
    """
    return (math.sqrt(2) * torch.erfinv(units * math.erf(reach / math.sqrt(2)))).clamp(-reach, reach)


def truncated_normal_entropy(reach: float) -> float:
    """Differential entropy, nats, of standard normal noise cut off at ± reach: log(√(2πe) Z) - reach φ(reach) / Z."""
    mass = math.erf(reach / math.sqrt(2))
    density = math.exp(-(reach**2) / 2) / math.sqrt(2 * math.pi)
    return 0.5 * math.log(2 * math.pi * math.e) + math.log(mass) - reach * density / mass


def _units(levels: Levels, items: Trajectories) -> Images:
    """Uniform draws on (-1, 1), float64, in the shape of `levels`."""
    draws = [items.streams.uniform(levels.shape[1:], "dequantisation", item) for item in items.ids.tolist()]
    # The draws are multiples of 2^-24 and may be 0; the middles of those steps leave both ends out.
    return (2 * (torch.stack(draws).double() + 2**-25) - 1).to(levels.device)
