"""Other pixel grids: the same noisy image, the same likelihood."""

import pytest
import torch

from moeframe.diffusion import add_noise, alpha, sigma, to_pixels, velocity_of
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.ode import OdeSolver, ode_likelihood
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert
from moeframe_builtin.schedules.linear import LinearSchedule
from moeframe_pretrained.pixel_grid import PixelGrid

IMAGE = ImageShape(1, 4, 4, 64)
SCALES = [256 / 255, 2.0, 0.25, 127.5]


class OnAnotherGrid(Expert):
    """The true denoiser of Gaussian data, known on the grid u = scale x only."""

    Config = GaussianExpert.Config

    def __init__(self, scale: float, mean: float, std: float):
        super().__init__(GaussianExpert.Config(), image=IMAGE)
        self.grid = PixelGrid(scale)
        there = GaussianExpert.Config(mean=scale * mean, std=scale * std)
        self.inner = GaussianExpert(there, image=IMAGE)

    def forward(self, z, log_snr):
        return self.grid.velocity_back(self.inner(*self.grid.noisy(z, log_snr)), z, log_snr)


def test_a_grid_that_reaches_both_ends_places_levels_as_other_codebases_do():
    levels = torch.arange(256).view(1, 1, 16, 16)
    there = PixelGrid.reaching_both_ends(256).scale * to_pixels(levels, 256).double()
    assert torch.allclose(there, levels.double() / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_the_noisy_image_is_the_same_one_with_the_same_noise(scale):
    streams = Streams(0)
    x, noise = (streams.normal((5, 1, 4, 4), name).double() for name in ("x", "noise"))
    log_snr = torch.linspace(-6, 6, 5).double()
    grid = PixelGrid(scale)
    z_there, there = grid.noisy(add_noise(x, noise, log_snr), log_snr)
    torch.testing.assert_close(z_there, add_noise(scale * x, noise, there), rtol=1e-10, atol=1e-10)
    assert torch.allclose(sigma(there) / alpha(there), scale * sigma(log_snr) / alpha(log_snr))
    back = grid.velocity_back(velocity_of(scale * x, noise, there), add_noise(x, noise, log_snr), log_snr)
    torch.testing.assert_close(back, velocity_of(x, noise, log_snr), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_bits_per_dim_do_not_move_with_the_range_that_the_data_is_scaled_to(scale):
    levels = torch.randint(0, 64, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    schedule = LinearSchedule(LinearSchedule.Config(log_snr_min=-8, log_snr_max=8))
    items, times = Trajectories.numbered(Streams(0), 0, 6), torch.linspace(0.05, 0.95, 6).double()
    ours = MergedDenoiser([GaussianExpert(GaussianExpert.Config(mean=0.1, std=0.5), image=IMAGE)])
    theirs = MergedDenoiser([OnAnotherGrid(scale, 0.1, 0.5)])
    torch.set_default_dtype(torch.float64)
    try:
        bounds = [continuous_bound(model, schedule, IMAGE, levels, times, items).total for model in (ours, theirs)]
        solver = OdeSolver("dopri5", 1e-8, 1e-8, 64, torch.float64)
        flows = [
            ode_likelihood(model, schedule, IMAGE, levels, items, gate=None, divergence="exact", solver=solver).total
            for model in (ours, theirs)
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(bounds[1], bounds[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(flows[1], flows[0], rtol=0, atol=1e-6)
