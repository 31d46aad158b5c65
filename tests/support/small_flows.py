"""Probability flows whose densities are known in closed form."""

import math
from typing import Literal

import torch

from moeframe.diffusion import per_image, velocity_from_image
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.dequantisation import dequantise
from moeframe.likelihood.ode import OdeLikelihood, OdeSolver, ode_likelihood
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert
from moeframe_builtin.schedules.linear import LinearSchedule

STREAMS = Streams(0)


TIGHT = OdeSolver(rtol=1e-9, atol=1e-9, network_dtype=torch.float64)


PAIR = ImageShape(1, 1, 2, 64)


SQUARE = ImageShape(1, 8, 8, 64)


SMALL = ImageShape(1, 2, 2, 64)


def line(low: float, high: float) -> LinearSchedule:
    return LinearSchedule(LinearSchedule.Config(log_snr_min=low, log_snr_max=high))


def numbered(n: int, start: int = 0) -> Trajectories:
    return Trajectories.numbered(STREAMS, start, start + n)


def drawn_levels(n: int, image: ImageShape) -> torch.Tensor:
    pixels = 0.3 * STREAMS.normal((n, *image.tensor_shape), "pixels")
    return ((pixels + 1) / 2 * image.levels).long().clamp(0, image.levels - 1)


def gaussian(image: ImageShape, **config) -> MergedDenoiser:
    return MergedDenoiser([GaussianExpert(GaussianExpert.Config(**config), image=image)])


def ode(model: MergedDenoiser, image: ImageShape, schedule, levels: torch.Tensor, **how) -> OdeLikelihood:
    how = {"solver": TIGHT, "divergence": "exact", "items": numbered(len(levels)), **how}
    return ode_likelihood(model, schedule, image, levels, gate=model.gate, **how)


def pixels_of(levels: torch.Tensor, image: ImageShape, schedule, how="uniform") -> torch.Tensor:
    return dequantise(levels, image.levels, how, schedule.log_snr_max, numbered(len(levels))).pixels


def worst(one: torch.Tensor, two: torch.Tensor) -> float:
    assert one.shape == two.shape
    return float((one - two).abs().max())


class UniformExpert(Expert):
    """The exact velocity for pixels spread evenly on (-1, 1): the mean of a normal cut off at both ends."""

    class Config(Expert.Config):
        type: Literal["uniform_expert"] = "uniform_expert"

    def forward(self, z, log_snr):
        y, scale = z / per_image(torch.sigmoid(log_snr).sqrt(), z), per_image((-log_snr / 2).exp(), z)
        below, above = (-1 - y) / scale, (1 - y) / scale
        mass = torch.special.ndtr(above) - torch.special.ndtr(below)
        density = (torch.exp(-0.5 * below**2) - torch.exp(-0.5 * above**2)) / math.sqrt(2 * math.pi)
        return velocity_from_image(y + scale * density / mass, z, log_snr)


class SwitchGate(Gate):
    """Expert 0 above a log-SNR, expert 1 from it down; tells so only if asked to."""

    class Config(Gate.Config):
        type: Literal["switching"] = "switching"
        at: float
        told: bool = True

    @property
    def switches(self):
        return (self.config.at,) if self.config.told else ()

    def forward(self, z, log_snr):
        above = (log_snr > self.config.at).to(z.dtype)
        return torch.stack([above, 1 - above], 1)


def switching(**config) -> MergedDenoiser:
    parts = [GaussianExpert(GaussianExpert.Config(std=std), image=PAIR) for std in (0.2, 0.6)]
    return MergedDenoiser(parts, SwitchGate(SwitchGate.Config(**config), image=PAIR, n_experts=2))
