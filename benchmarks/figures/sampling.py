"""Figures about samplers and parametrisations: orders of convergence, and reference implementations."""

from typing import Any

import numpy as np
import torch
from figures.merging import IMAGE, STREAMS, Values, worst

from moeframe import diffusion
from moeframe.interfaces.sampler import Sampler
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.testing import GaussianExpert
from moeframe_builtin.samplers.ddim import DdimSampler
from moeframe_builtin.samplers.heun import HeunSampler
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule


@torch.no_grad()
def _order(component: type[Sampler]) -> Values:
    schedule = LinearSchedule(LinearSchedule.Config(log_snr_min=-6, log_snr_max=6))
    part = GaussianExpert.Config(mean=0.4, std=0.3)
    model, items = MergedDenoiser([GaussianExpert(part, image=IMAGE)]), Trajectories.numbered(STREAMS, 0, 4)
    ends = torch.tensor([-6.0, 6.0], dtype=torch.float64)
    (first_a, last_a), (first_var, last_var) = diffusion.alpha(ends), part.variance(ends)
    z = items.normal(IMAGE.tensor_shape, "noise").double()
    # the flow keeps the quantile of a Gaussian
    exact = last_a * part.mean + (last_var / first_var).sqrt() * (z - first_a * part.mean)
    intervals, errors = (32, 64, 128, 256), []
    for n in intervals:
        sampler = component(
            component.Config.model_validate({"type": component.name(), "steps": n + 1, "clip": False}),
            schedule=schedule,
        )
        *_, before_last, _ = sampler.trajectory(model, z, items)
        errors.append(worst(before_last.z, exact))
    slope = np.polyfit(np.log(intervals), np.log(errors), 1)[0]
    return {"order": -float(slope)}


def order_of_ddim() -> Values:
    """Measured order of convergence to the exact flow of a Gaussian, 32 to 256 steps, float64."""
    return _order(DdimSampler)


def order_of_heun() -> Values:
    """Measured order of convergence to the exact flow of a Gaussian, 32 to 256 steps, float64."""
    return _order(HeunSampler)


def steps_against_diffusers() -> Values:
    """Largest difference of one step from diffusers' DDPMScheduler (fixed_small) and DDIMScheduler (η = 0).

    With its own float32 table of ᾱ, and with the same table in float64.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    shared = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    ddpm, ddim = DDPMScheduler(**shared, variance_type="fixed_small"), DDIMScheduler(**shared)
    for scheduler in (ddpm, ddim):
        scheduler.set_timesteps(50)
    found = _differences_from(ddpm, ddim)
    for scheduler in (ddpm, ddim):
        scheduler.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    return {**found, **{f"{name}, float64 table": value for name, value in _differences_from(ddpm, ddim).items()}}


def _differences_from(ddpm: Any, ddim: Any) -> Values:
    schedule = DdpmSchedule(DdpmSchedule.Config())
    z, predicted = (STREAMS.normal((4, *IMAGE.tensor_shape), part).double() for part in ("z", "predicted noise"))
    found = {"ancestral": 0.0, "ddim": 0.0}
    for t in (980, 740, 500, 260, 20):
        here, there = (schedule.log_snr(torch.full((4,), at / 999, dtype=torch.float64)) for at in (t, t - 20))
        velocity = diffusion.velocity_from_noise(predicted, z, here)
        image = diffusion.image_from_velocity(velocity, z, here)
        fresh = torch.randn(z.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        ours = diffusion.ancestral_step(z, image, fresh, here, there)
        theirs = ddpm.step(predicted, t, z, generator=torch.Generator().manual_seed(t)).prev_sample
        found["ancestral"] = max(found["ancestral"], worst(ours, theirs))
        theirs = ddim.step(predicted, t, z, eta=0.0).prev_sample
        found["ddim"] = max(found["ddim"], worst(diffusion.ddim_step(z, image, here, there), theirs))
    return found


def edm_preconditioning_against_formula() -> Values:
    """Largest difference of input and velocity from c_in, c_skip and c_out as in Karras et al. 2022, table 1."""
    log_snr, data = torch.linspace(-9, 12, 64, dtype=torch.float64), 0.4
    z, output = (STREAMS.normal((64, *IMAGE.tensor_shape), part).double() for part in ("z", "F"))
    s, a = (diffusion.per_image(v, z) for v in (torch.exp(-log_snr / 2), diffusion.alpha(log_snr)))
    y = z / a
    c_skip, c_out = data**2 / (s**2 + data**2), s * data / (s**2 + data**2).sqrt()
    expected = diffusion.velocity_from_image(c_skip * y + c_out * output, z, log_snr)
    return {
        "input": worst(diffusion.edm_input(z, log_snr, data), y / (s**2 + data**2).sqrt()),
        "velocity": worst(diffusion.velocity_from_edm(output, z, log_snr, data), expected),
    }
