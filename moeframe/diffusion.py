"""The theory as pure functions: noising, conversions between parametrisations, sampler steps, bound terms.

Variance preserving: z = α x + σ ε with α² = sigmoid(λ), σ² = sigmoid(-λ), λ = log-SNR. The canonical prediction is the
velocity v = α ε - σ x (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512): from it x = α z - σ v and ε = σ z + α v,
both coefficients at most 1 at every noise level. Functions take λ as (batch,) and broadcast it over images.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from moeframe.shapes import Images, Levels, LogSnr, PerItem


def alpha(log_snr: Tensor) -> Tensor:
    """Signal scale α = sqrt(sigmoid(λ)), same shape as λ."""
    return torch.sigmoid(log_snr).sqrt()


def sigma(log_snr: Tensor) -> Tensor:
    """Noise scale σ = sqrt(sigmoid(-λ)), same shape as λ."""
    return torch.sigmoid(-log_snr).sqrt()


def per_image(values: PerItem, images: Images) -> Float[Tensor, "batch 1 1 1"]:
    """Shape (batch,) values so that they broadcast over images."""
    return values.to(images.dtype).view(-1, 1, 1, 1)


def _scales(log_snr: LogSnr, images: Images) -> tuple[Tensor, Tensor]:
    return per_image(alpha(log_snr), images), per_image(sigma(log_snr), images)


# --- pixels -----------------------------------------------------------------------------------------------------------


def to_pixels(levels: Levels, n_levels: int) -> Images:
    """Bin centres x = (2 i + 1) / L - 1 of integer levels i.

    >>> to_pixels(torch.tensor([[[[0, 1]]]]), 2)
    tensor([[[[-0.5000,  0.5000]]]])
    """
    return (2 * levels.to(torch.get_default_dtype()) + 1) / n_levels - 1


def to_levels(pixels: Images, n_levels: int) -> Levels:
    """The nearest integer level of each pixel, clipped to 0 .. L-1."""
    return ((pixels + 1) * n_levels / 2).floor().clamp(0, n_levels - 1).long()


# --- noising and parametrisations -------------------------------------------------------------------------------------


def add_noise(x: Images, noise: Images, log_snr: LogSnr) -> Images:
    """z = α x + σ ε."""
    a, s = _scales(log_snr, x)
    return a * x + s * noise


def velocity_of(x: Images, noise: Images, log_snr: LogSnr) -> Images:
    """v = α ε - σ x."""
    a, s = _scales(log_snr, x)
    return a * noise - s * x


def image_from_velocity(velocity: Images, z: Images, log_snr: LogSnr) -> Images:
    """x = α z - σ v."""
    a, s = _scales(log_snr, z)
    return a * z - s * velocity


def noise_from_velocity(velocity: Images, z: Images, log_snr: LogSnr) -> Images:
    """ε = σ z + α v."""
    a, s = _scales(log_snr, z)
    return s * z + a * velocity


def velocity_from_image(image: Images, z: Images, log_snr: LogSnr) -> Images:
    """v = (α z - x) / σ; amplifies an error of x by 1/σ at low noise."""
    a, s = _scales(log_snr, z)
    return (a * z - image) / s


def velocity_from_noise(noise: Images, z: Images, log_snr: LogSnr) -> Images:
    """v = (ε - σ z) / α; amplifies an error of ε by 1/α at high noise."""
    a, s = _scales(log_snr, z)
    return (noise - s * z) / a


def noise_from_image(image: Images, z: Images, log_snr: LogSnr) -> Images:
    """ε = (z - α x) / σ: the noise that goes with a (perhaps clipped) image prediction."""
    a, s = _scales(log_snr, z)
    return (z - a * image) / s


def edm_input(z: Images, log_snr: LogSnr, sigma_data: float) -> Images:
    """The input c_in y of an EDM network, with y = z / α (Karras et al. 2022, table 1)."""
    a, s = _scales(log_snr, z)
    return z / (s**2 + (sigma_data * a) ** 2).sqrt()


def velocity_from_edm(network_output: Images, z: Images, log_snr: LogSnr, sigma_data: float) -> Images:
    """Velocity of an EDM network's raw output F, where D = c_skip y + c_out F.

    Substituting y = z/α and σ_VE = σ/α in v = (α z - D) / σ leaves, with s² = σ² + α² σ_data²,
    v = α σ (1 - σ_data²) / s² · z - σ_data / s · F, in which nothing is divided by α or σ.
    """
    a, s = _scales(log_snr, z)
    variance = s**2 + (sigma_data * a) ** 2
    return a * s * (1 - sigma_data**2) / variance * z - sigma_data / variance.sqrt() * network_output


# --- one step of a sampler --------------------------------------------------------------------------------------------


def ddim_step(z: Images, image: Images, log_snr: LogSnr, next_log_snr: LogSnr) -> Images:
    """Deterministic step to less noise given the predicted image (Song et al. 2021, DDIM, eq. 12 with η = 0)."""
    next_a, next_s = _scales(next_log_snr, z)
    return next_a * image + next_s * noise_from_image(image, z, log_snr)


def ancestral_step(z: Images, image: Images, noise: Images, log_snr: LogSnr, next_log_snr: LogSnr) -> Images:
    """Draw from q(z_next | z, x = image) (VDM, eq. 7; DDPM's posterior with its smaller variance)."""
    a, _ = _scales(log_snr, z)
    next_a, next_s = _scales(next_log_snr, z)
    # 1 - SNR(noisier)/SNR(cleaner), without cancellation when the two are close
    gain = per_image(-torch.expm1(log_snr - next_log_snr), z)
    mean = next_a * ((1 - gain) * z / a + gain * image)
    return mean + next_s * gain.sqrt() * noise


# --- terms of the variational bound, in nats per image ----------------------------------------------------------------


def _per_item_sum(values: Images) -> PerItem:
    return values.flatten(1).sum(1)


def diffusion_nats(velocity: Images, predicted: Images, log_snr: LogSnr) -> PerItem:
    """½ ‖ε - ε̂‖² = ½ α² ‖v - v̂‖², the integrand over λ of the diffusion term (VDM, eq. 18)."""
    return 0.5 * torch.sigmoid(log_snr) * _per_item_sum((velocity - predicted) ** 2)


def prior_nats(x: Images, log_snr: LogSnr) -> PerItem:
    """KL(q(z | x) ‖ N(0, I)) at the noisiest log-SNR."""
    a2, s2 = per_image(torch.sigmoid(log_snr), x), per_image(torch.sigmoid(-log_snr), x)
    log_s2 = per_image(F.logsigmoid(-log_snr), x)
    return _per_item_sum(0.5 * (a2 * x**2 + s2 - 1 - log_s2))


def reconstruction_nats(levels: Levels, z: Images, log_snr: LogSnr, n_levels: int) -> PerItem:
    """-log p(x | z) at the cleanest log-SNR, with p(level j | z) ∝ N(z/α; centre_j, σ²/α²) over the L levels."""
    a, s = _scales(log_snr, z)
    half_precision = 0.5 * (a / s) ** 2
    y = z / a

    def exponent(level: Tensor | int) -> Images:
        return half_precision * (y - ((2 * level + 1) / n_levels - 1)) ** 2

    nearest = exponent(((y + 1) * (n_levels / 2) - 0.5).round().clamp(0, n_levels - 1))
    # A loop over levels: (batch, D, 256) at once would be 256 times the batch's memory. What is below e^-80 counts for
    # nothing beside the nearest level's 1, and is slow to compute.
    total = torch.zeros_like(z)
    for level in range(n_levels):
        total += torch.exp((nearest - exponent(level)).clamp(min=-80))
    return _per_item_sum(exponent(levels.to(z.dtype)) - nearest + total.log())


def bits_per_dim(nats: PerItem, n_dims: int) -> PerItem:
    """Nats per image as bits per dimension: divide by D ln 2, D = channels x height x width (not pixels)."""
    return nats / (n_dims * math.log(2))
