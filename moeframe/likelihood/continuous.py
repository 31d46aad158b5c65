"""The continuous-time variational bound on -log2 p(x), in bits per dimension (VDM, Kingma et al. 2021, eqs. 11-18).

bound = [ recon + KL(q(z_λmin | x) ‖ N(0, I)) + ½ ∫ E‖ε - ε̂‖² dλ over (λmin, λmax) ] / (D ln 2)
"""

import torch

from moeframe.diffusion import (
    add_noise,
    bits_per_dim,
    diffusion_nats,
    prior_nats,
    reconstruction_nats,
    to_pixels,
    velocity_of,
)
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.bound import Bound
from moeframe.randomness import Trajectories
from moeframe.shapes import Levels, Times


@torch.no_grad()
def continuous_bound(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    times: Times,
    items: Trajectories,
) -> Bound:
    """One unbiased draw of the bound for each image, at its own log-SNR λ = λmax - (λmax - λmin) t.

    The schedule gives the range alone, so that models with different schedules over one range are measured at the same
    noise levels. The draw stands for the whole integral: ½ ‖ε - ε̂‖² · (λmax - λmin). `levels` and `times` lie on the
    model's device; noise is addressed by `items`, so that two models see the same.
    """
    x = to_pixels(levels, image.levels)
    n_dims = image.n_dims

    low, high = schedule.log_snr_min, schedule.log_snr_max
    log_snr = high - (high - low) * times
    noise = items.normal(image.tensor_shape, "bound/noise").to(x)
    z = add_noise(x, noise, log_snr)
    predicted = denoiser(z, log_snr, items).velocity
    diffusion = (high - low) * diffusion_nats(velocity_of(x, noise, log_snr), predicted, log_snr)

    cleanest, noisiest = torch.full_like(times, high), torch.full_like(times, low)
    z_cleanest = add_noise(x, items.normal(image.tensor_shape, "bound/reconstruction").to(x), cleanest)
    reconstruction = reconstruction_nats(levels, z_cleanest, cleanest, image.levels)

    return Bound(
        reconstruction=bits_per_dim(reconstruction, n_dims),
        prior=bits_per_dim(prior_nats(x, noisiest), n_dims),
        diffusion=bits_per_dim(diffusion, n_dims),
        log_snr=log_snr,
    )
