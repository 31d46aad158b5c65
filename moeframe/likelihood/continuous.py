"""The continuous-time variational bound on -log2 p(x), in bits per dimension (VDM, eqs. 11-18).

bound = [ recon + KL(q(z_λmin | x) ‖ N(0, I)) + ½ ∫ E‖ε - ε̂‖² dλ over (λmin, λmax) ] / (D ln 2)

Kingma et al. 2021, https://arxiv.org/abs/2107.00630.
"""

import torch

from moeframe.diffusion import add_noise, bits_per_dim, diffusion_nats, to_pixels, velocity_of
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.bound import Bound, end_terms
from moeframe.likelihood.importance import LogSnrDensity
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
    density: LogSnrDensity | None = None,
) -> Bound:
    """One unbiased draw of the bound for each image, at its own log-SNR: the quantile `times` of `density`.

    The density is uniform unless given. The schedule gives the range alone, so that models with different schedules
    over one range are measured at the same noise levels. The draw estimates the entire integral: ½ ‖ε - ε̂‖² / density.
    `levels` and `times` are on the model's device; noise is addressed by `items`, so that two models see the same.
    """
    density = density or LogSnrDensity.uniform(schedule)
    x = to_pixels(levels, image.levels)
    log_snr = density.log_snr(times)
    noise = items.normal(image.tensor_shape, "bound/noise").to(x)
    denoised = denoiser(add_noise(x, noise, log_snr), log_snr, items)
    nats = density.inverse(times) * diffusion_nats(velocity_of(x, noise, log_snr), denoised.velocity, log_snr)
    ends = end_terms(schedule, image, levels, items)
    return Bound(
        reconstruction=ends.reconstruction,
        prior=ends.prior,
        diffusion=bits_per_dim(nats, image.n_dims),
        log_snr=log_snr,
        network_calls=denoised.network_calls,
    )
