"""Figures about the objective: loss weightings and their agreement with the bound."""

import torch
from figures.merging import IMAGE, STREAMS, Values, unet

from moeframe import diffusion
from moeframe.interfaces.loss import TrainingStep
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe_builtin.losses.nll import NllLoss
from moeframe_builtin.schedules.cosine import CosineSchedule
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.edm import EdmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule

SCHEDULES: tuple[NoiseSchedule, ...] = tuple(
    schedule(schedule.Config.model_validate({"type": schedule.name()}))
    for schedule in (CosineSchedule, DdpmSchedule, EdmSchedule, LinearSchedule)
)


def weighting_means_minus_one() -> Values:
    """Mean over λ of each loss weighting on each schedule, by the trapezoidal rule in λ, minus one."""
    found = {}
    for schedule in SCHEDULES:
        log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 20_001, dtype=torch.float64)
        rate = schedule.rate(schedule.time_of(log_snr))
        for weighting in ("vlb", "simple", "edm", "min_snr"):
            config = NllLoss.Config.model_validate({"type": "nll", "weighting": weighting})
            loss = NllLoss(config, schedule=schedule, slice_shares=(1.0,))
            integral = torch.trapezoid(loss.weight(log_snr, rate), log_snr)
            found[f"{weighting} on {schedule.name()}"] = float(integral / (log_snr[-1] - log_snr[0])) - 1
    return found


@torch.no_grad()
def vlb_loss_against_bound() -> Values:
    """Largest relative difference between the integrands over λ of the vlb loss and of the bound's diffusion term."""
    found = {}
    for schedule in SCHEDULES:
        items, times = Trajectories.numbered(STREAMS, 0, 32), STREAMS.low_discrepancy(32, "times").double()
        levels = (STREAMS.uniform((32, 1, 8, 8), "levels") * 256).long()
        model = MergedDenoiser([unet(0).float()])
        x, noise = diffusion.to_pixels(levels, 256), items.normal(IMAGE.tensor_shape, "bound/noise")
        bound = continuous_bound(model, schedule, IMAGE, levels, times.float(), items)
        log_snr, velocity = bound.log_snr, diffusion.velocity_of(x, noise, bound.log_snr)
        z = diffusion.add_noise(x, noise, log_snr)
        rate, ids = schedule.rate(schedule.time_of(log_snr)), torch.zeros(32, dtype=torch.long)
        step = TrainingStep(x, z, log_snr, rate, velocity, model(z, log_snr), ids)
        loss = NllLoss(NllLoss.Config(), schedule=schedule, slice_shares=(1.0,))
        integrand = bound.diffusion / (schedule.log_snr_max - schedule.log_snr_min)
        found[schedule.name()] = float((loss.per_item(step) / rate / integrand - 1).abs().max())
    return found
