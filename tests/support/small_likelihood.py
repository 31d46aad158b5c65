"""Parts that likelihoods are tried on: noise that is stated, and a denoiser that lives on other pixels."""

import math
from dataclasses import dataclass

from torch import Tensor

from moeframe.diffusion import alpha, image_from_velocity, per_image, velocity_from_image
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoised
from moeframe.randomness import Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture


@dataclass(frozen=True)
class GivenNoise(Trajectories):
    """Noise that is stated: the nodes of a quadrature, (items, dims)."""

    noise: Tensor

    def normal(self, shape, purpose, *address):
        del purpose, address
        return self.noise.view(-1, *shape)


class OtherRange:
    """A denoiser whose networks live on pixels a x + b: image, noise and log-SNR are converted there and back."""

    def __init__(self, a: float, b: float, image: ImageShape):
        self.a, self.b = a, b
        parts = [GaussianExpert.Config(mean=a * mean + b, std=a * std) for mean, std in ((-0.4, 0.2), (0.3, 0.4))]
        self.native = gaussian_mixture(parts, (0.4, 0.6), image)

    def __call__(self, z: Tensor, log_snr: Tensor, trajectories: Trajectories | None = None) -> Denoised:
        own_log_snr = log_snr - 2 * math.log(self.a)  # the noise is a times as large, and so are the pixels
        own_z = per_image(alpha(own_log_snr), z) * (self.a * z / per_image(alpha(log_snr), z) + self.b)
        found = self.native(own_z, own_log_snr, trajectories)
        guess = (image_from_velocity(found.velocity, own_z, own_log_snr) - self.b) / self.a
        return Denoised(velocity_from_image(guess, z, log_snr), found.routing, found.contributions)
