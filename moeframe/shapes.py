"""Names for the tensor shapes of the public interfaces.

They are jaxtyping annotations: documentation for a reader, checked at run time in the test suite.
"""

from typing import TypeAlias

from jaxtyping import Float, Integer
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channels height width"]
"""Real-valued images. Clean ones have pixel x = (2 i + 1) / L - 1 for integer level i of L: bin centres in (-1, 1)."""

Levels: TypeAlias = Integer[Tensor, "batch channels height width"]
"""Integer images with levels 0 .. L-1."""

LogSnr: TypeAlias = Float[Tensor, " batch"]
"""log-SNR λ = log(α²/σ²), natural logarithm, one per image; large is clean."""

Times: TypeAlias = Float[Tensor, " batch"]
"""Schedule time in [0, 1]; 0 is clean, 1 is noise."""

GateWeights: TypeAlias = Float[Tensor, "batch experts"]
"""Non-negative weights whose rows sum to one."""

PerItem: TypeAlias = Float[Tensor, " batch"]
"""One real number per image."""

SliceIds: TypeAlias = Integer[Tensor, " batch"]
"""Slice (expert) number 0 .. K-1 per image."""

ItemIds: TypeAlias = Integer[Tensor, " batch"]
"""Stable number of an image or a trajectory, from which its random draws are addressed."""

Scalar: TypeAlias = Float[Tensor, ""]
"""A tensor of no dimensions."""
