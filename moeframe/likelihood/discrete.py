"""The discrete-time variational bound on -log2 p(x) over T steps, in bits per dimension.

bound = [ recon + KL(q(z_λmin | x) ‖ N(0, I)) + Σ_i KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) ] / (D ln 2)
with s = (i - 1) / T and t = i / T.

p(z_s | z_t) is the posterior with the predicted image in place of x, and has its variance, so that each term is
½ (SNR(s) - SNR(t)) ‖x - x̂‖² (VDM, eq. 13; improved DDPM's bound with the smaller variance β̃).

VDM, https://arxiv.org/abs/2107.00630; improved DDPM, https://arxiv.org/abs/2102.09672.
"""

import torch

from moeframe.diffusion import add_noise, bits_per_dim, diffusion_nats, to_pixels, velocity_of
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.bound import Bound, end_terms
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, Levels, LogSnr, PerItem, Times


@torch.no_grad()
def discrete_bound(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    times: Times,
    items: Trajectories,
    *,
    steps: int,
    terms: int,
) -> Bound:
    """One unbiased draw of the bound over `steps` steps for each image, from `terms` of its terms.

    The steps are cut into `terms` equal runs; each image takes one step of every run, at the place that its time in
    [0, 1) says, and each step counts for steps / terms. With `terms` equal to `steps` the sum is exact, and `times` do
    not matter. `levels` and `times` are on the model's device; noise is addressed by `items`.
    """
    assert 1 <= terms <= steps, f"{terms} terms of {steps} steps"
    x = to_pixels(levels, image.levels)
    # float64: neighbours among 1000 log-SNRs differ by a few float32 roundings of themselves
    grid = schedule.log_snr(torch.arange(steps + 1, dtype=torch.float64) / steps).to(x.device)
    nats, calls, first = torch.zeros(len(x), dtype=torch.float64, device=x.device), 0, x.new_zeros(len(x))
    for term in range(terms):
        step = ((term + times.double()) * steps / terms).floor().long().clamp(max=steps - 1)
        cleaner, noisier = grid[step], grid[step + 1]
        log_snr = noisier.to(x.dtype)
        noise = items.normal(image.tensor_shape, "bound/noise", term).to(x)
        denoised = denoiser(add_noise(x, noise, log_snr), log_snr, items)
        nats += steps / terms * step_nats(velocity_of(x, noise, log_snr), denoised.velocity, noisier, cleaner)
        calls += denoised.network_calls
        first = log_snr if term == 0 else first
    ends = end_terms(schedule, image, levels, items)
    return Bound(
        reconstruction=ends.reconstruction,
        prior=ends.prior,
        diffusion=bits_per_dim(nats, image.n_dims).to(x.dtype),
        log_snr=first,
        network_calls=calls,
    )


def step_nats(velocity: Images, predicted: Images, log_snr: LogSnr, cleaner: LogSnr) -> PerItem:
    """KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) in nats, at log-SNRs λ_t = `log_snr` and λ_s = `cleaner`.

    As x - x̂ = σ_t (v̂ - v) and SNR(s) / SNR(t) - 1 = expm1(λ_s - λ_t), it is expm1(λ_s - λ_t) · ½ α_t² ‖v - v̂‖²: no
    difference of signal-to-noise ratios, nothing divided by α or σ, and the continuous integrand times dλ in the limit.
    """
    return torch.expm1(cleaner - log_snr) * diffusion_nats(velocity, predicted, log_snr)
