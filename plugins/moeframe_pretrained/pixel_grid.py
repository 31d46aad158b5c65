"""Pixel grids of other codebases, and the conversion of noisy images and noise levels to ours.

Ours are bin centres, x = (2 i + 1) / L - 1. The usual other grid reaches both ends, u = 2 i / (L - 1) - 1, which is
u = c x with c = L / (L - 1): the same noisy image seen with c times the noise.
"""

import math
from dataclasses import dataclass

from moeframe.diffusion import alpha, image_from_velocity, noise_from_velocity, per_image, velocity_of
from moeframe.shapes import Images, LogSnr


@dataclass(frozen=True)
class PixelGrid:
    """A grid u = scale · x of pixel values; scale 1 is our own."""

    scale: float

    @classmethod
    def reaching_both_ends(cls, n_levels: int) -> "PixelGrid":
        """u = 2 i / (L - 1) - 1, as in `i / 127.5 - 1`."""
        return cls(n_levels / (n_levels - 1))

    @property
    def what(self) -> str:
        """In words, for the report."""
        return "bin centres, (2 i + 1) / L - 1" if self.scale == 1 else "both ends, 2 i / (L - 1) - 1"

    @property
    def log_snr_shift(self) -> float:
        """What to add to our log-SNR to get that of the same noisy image on this grid, where noise stays as it is."""
        return -2 * math.log(self.scale)

    def noisy(self, z: Images, log_snr: LogSnr) -> tuple[Images, LogSnr]:
        """The same noisy image on this grid, variance preserving, and its log-SNR there.

        From z / α = x + (σ / α) ε follows c z / α = u + c (σ / α) ε.
        """
        there = log_snr + self.log_snr_shift
        return z * per_image(self.scale * alpha(there) / alpha(log_snr), z), there

    def velocity_back(self, velocity: Images, z: Images, log_snr: LogSnr) -> Images:
        """Our velocity from the one predicted on this grid for `noisy(z, log_snr)`; exact, the noise is the same."""
        z_there, there = self.noisy(z, log_snr)
        image = image_from_velocity(velocity, z_there, there) / self.scale
        return velocity_of(image, noise_from_velocity(velocity, z_there, there), log_snr)
