"""The discrete bound: closed forms, an independent reference, its limit, and a subset of its terms."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from small_likelihood import GivenNoise, OtherRange

from moeframe.diffusion import add_noise, alpha, image_from_velocity, per_image, sigma, to_pixels
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.discrete import discrete_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.schedules.cosine import CosineSchedule
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule

STREAMS = Streams(5)
PIXEL = ImageShape(1, 1, 1, 64)
STD = 0.3
SCHEDULES = {
    "linear": LinearSchedule(LinearSchedule.Config(log_snr_min=-9, log_snr_max=8)),
    "cosine": CosineSchedule(CosineSchedule.Config(log_snr_min=-9, log_snr_max=8)),
    "ddpm": DdpmSchedule(DdpmSchedule.Config()),
}


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gaussian_model(image: ImageShape = PIXEL, std: float = STD) -> MergedDenoiser:
    return MergedDenoiser([GaussianExpert(GaussianExpert.Config(std=std, mean=0.1), image=image)])


def expected_diffusion(schedule, steps: int, std: float = STD) -> torch.Tensor:
    """E over noise of the diffusion term of a pixel of each level, in nats, by exact quadrature through the engine."""
    nodes, chance = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(3))
    levels = torch.arange(PIXEL.levels).repeat_interleave(3).view(-1, 1, 1, 1)
    items = GivenNoise(STREAMS, torch.arange(len(levels)), nodes.repeat(PIXEL.levels))
    times = torch.zeros(len(levels))
    bound = discrete_bound(gaussian_model(std=std), schedule, PIXEL, levels, times, items, steps=steps, terms=steps)
    return (bound.diffusion.view(-1, 3) * chance / chance.sum()).sum(1) * math.log(2)


def squared_error(x: np.ndarray, log_snr: float, std: float = STD) -> np.ndarray:
    """E (x - x̂)² for a pixel x: x̂ = m + k (z - α m), k = α std² / (α² std² + σ²)."""
    a2, s2 = 1 / (1 + math.exp(-log_snr)), 1 / (1 + math.exp(log_snr))
    k = math.sqrt(a2) * std**2 / (a2 * std**2 + s2)
    return (1 - k * math.sqrt(a2)) ** 2 * (x - 0.1) ** 2 + k**2 * s2


def pixels() -> np.ndarray:
    return (2 * np.arange(PIXEL.levels) + 1) / PIXEL.levels - 1


def grid_of(schedule, steps: int) -> list[float]:
    return schedule.log_snr(torch.arange(steps + 1, dtype=torch.float64) / steps).tolist()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, 250])
def test_the_expected_bound_meets_its_closed_form_on_gaussian_data(float64, name, steps):
    grid = grid_of(SCHEDULES[name], steps)
    closed = sum(0.5 * (math.exp(s) - math.exp(t)) * squared_error(pixels(), t) for s, t in itertools.pairwise(grid))
    found = expected_diffusion(SCHEDULES[name], steps).numpy()
    assert np.abs(found / closed - 1).max() < 1e-6


@pytest.mark.slow
def test_the_drawn_bound_meets_the_closed_form_within_three_standard_errors():
    dataset = Gaussian(Gaussian.Config(size=4, levels=64, std=STD, n_train=1, n_test=256))
    levels, schedule = dataset.split("test").images(torch.arange(256)), SCHEDULES["linear"]
    bounds = [bound_of(gaussian_model(dataset.image), levels, dataset.image, schedule, repeat) for repeat in range(40)]
    means = torch.stack([bound.diffusion.double().mean() for bound in bounds])
    grid = grid_of(schedule, 20)
    x = to_pixels(levels, 64).double().numpy()
    nats = sum(0.5 * (math.exp(s) - math.exp(t)) * squared_error(x, t) for s, t in itertools.pairwise(grid))
    error = float(means.std()) / math.sqrt(len(means))
    assert error < 0.02
    assert abs(float(means.mean()) - nats.mean() / math.log(2)) < 3 * error


def bound_of(model, levels, image, schedule, start: int, steps: int = 20, terms: int = 5) -> Bound:
    n = len(levels)
    items = Trajectories.numbered(STREAMS, start * n, (start + 1) * n)
    times = STREAMS.low_discrepancy(n, "times", start)
    return discrete_bound(model, schedule, image, levels, times, items, steps=steps, terms=terms)


def test_the_bound_falls_to_the_continuous_one_as_steps_grow(float64):
    """VDM, section 4.2: for a denoiser whose error falls with log-SNR, more steps are tighter, at first order."""
    data = Gaussian(Gaussian.Config(levels=64, std=STD, n_train=1, n_test=1))
    chance = 2.0 ** -data.bits_per_dim(torch.arange(64).view(-1, 1, 1, 1)).numpy()

    def integrand(log_snr: float) -> float:
        return 0.5 * math.exp(log_snr) * float((chance * squared_error(pixels(), log_snr)).sum())

    continuous, _ = quad(integrand, -9, 8, epsabs=1e-11, limit=200)
    counts = (4, 16, 64, 256, 1024)
    gaps = [float((chance * expected_diffusion(SCHEDULES["linear"], n).numpy()).sum()) - continuous for n in counts]
    assert all(later < earlier for earlier, later in itertools.pairwise(gaps))
    assert 0 < gaps[-1] < 0.03
    assert gaps[-2] / gaps[-1] == pytest.approx(4, rel=0.02)


def normal_kl(mean1, log_variance1, mean2, log_variance2):
    """KL of two Gaussians as in improved DDPM's losses.py, nats."""
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + np.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * np.exp(-log_variance2)
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_is_improved_ddpms_divergence_between_posteriors(float64, name):
    """Its recipe, written anew: betas, posterior mean coefficients and the smaller variance, KL of two Gaussians."""
    steps, image = 50, ImageShape(3, 4, 4, 32)
    levels = (STREAMS.uniform((6, *image.tensor_shape), "levels") * 32).long()
    items, model = Trajectories.numbered(STREAMS, 0, 6), gaussian_model(image, std=0.7)
    bound = discrete_bound(model, SCHEDULES[name], image, levels, torch.zeros(6), items, steps=steps, terms=steps)

    log_snr = np.array(grid_of(SCHEDULES[name], steps))
    alphas_bar = 1 / (1 + np.exp(-log_snr))
    betas = 1 - alphas_bar[1:] / alphas_bar[:-1]
    x, total = to_pixels(levels, 32), 0.0
    for i, beta in enumerate(betas):
        before, now = alphas_bar[i], alphas_bar[i + 1]
        noise = items.normal(image.tensor_shape, "bound/noise", i).double()
        z = math.sqrt(now) * x + math.sqrt(1 - now) * noise
        at = torch.full((6,), log_snr[i + 1])
        guess = image_from_velocity(model(z, at).velocity, z, at)
        mean_x = beta * math.sqrt(before) / (1 - now)
        mean_z = (1 - before) * math.sqrt(1 - beta) / (1 - now)
        log_variance = math.log(beta * (1 - before) / (1 - now))
        means = [(mean_x * image_ + mean_z * z).detach().numpy() for image_ in (x, guess)]
        total = total + normal_kl(means[0], log_variance, means[1], log_variance).sum((1, 2, 3))
    reference = total / math.log(2) / image.n_dims
    assert np.abs(bound.diffusion.numpy() - reference).max() < 1e-9


@pytest.mark.parametrize("terms", [1, 4, 5, 7, 12])
def test_a_subset_of_the_terms_is_unbiased(float64, terms):
    """Averaged over its place, with the same noise everywhere, it is the whole sum; also where runs are unequal."""
    steps = 12
    levels, noise = torch.full((steps, 1, 1, 1), 20), torch.full((steps,), 0.7)
    items = GivenNoise(STREAMS, torch.arange(steps), noise)
    places = (torch.arange(steps) + 0.5) / steps
    model, schedule = gaussian_model(), SCHEDULES["linear"]
    some = discrete_bound(model, schedule, PIXEL, levels, places, items, steps=steps, terms=terms)
    whole = discrete_bound(model, schedule, PIXEL, levels, places, items, steps=steps, terms=steps)
    assert float(some.diffusion.mean()) == pytest.approx(float(whole.diffusion[0]), rel=1e-12)
    assert some.network_calls == steps * terms
    assert float(some.diffusion.std()) > 0 or terms == steps


def test_the_whole_sum_does_not_depend_on_times_nor_on_the_batch():
    image = ImageShape(1, 4, 4, 16)
    levels = (STREAMS.uniform((5, *image.tensor_shape), "levels") * 16).long()

    def total(which: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        items = Trajectories(STREAMS, which)
        model, schedule = gaussian_model(image), SCHEDULES["linear"]
        return discrete_bound(model, schedule, image, levels[which], times, items, steps=10, terms=10).total

    everything = total(torch.arange(5), torch.zeros(5))
    assert torch.equal(everything, total(torch.arange(5), torch.linspace(0, 0.99, 5)))
    alone = torch.cat([total(torch.tensor([i]), torch.zeros(1)) for i in range(5)])
    assert torch.allclose(alone, everything, atol=1e-6)


def test_both_bounds_have_the_same_decoder_and_prior():
    image = ImageShape(1, 4, 4, 16)
    levels = (STREAMS.uniform((5, *image.tensor_shape), "levels") * 16).long()
    items, times, schedule = Trajectories.numbered(STREAMS, 0, 5), STREAMS.low_discrepancy(5, "t"), SCHEDULES["cosine"]
    one = continuous_bound(gaussian_model(image), schedule, image, levels, times, items)
    two = discrete_bound(gaussian_model(image), schedule, image, levels, times, items, steps=9, terms=3)
    assert torch.equal(one.reconstruction, two.reconstruction)
    assert torch.equal(one.prior, two.prior)


def test_every_expert_of_every_term_is_counted():
    image = ImageShape(1, 2, 2, 16)
    mixture = gaussian_mixture([GaussianExpert.Config(mean=m) for m in (-0.5, 0, 0.5)], (0.3, 0.3, 0.4), image)
    levels, schedule = torch.full((4, *image.tensor_shape), 3), SCHEDULES["linear"]
    assert bound_of(mixture, levels, image, schedule, 0, steps=8, terms=8).network_calls == 3 * 4 * 8
    assert bound_of(mixture, levels, image, schedule, 0, steps=8, terms=2).network_calls == 3 * 4 * 2


@pytest.mark.parametrize(("steps", "terms"), [(6, 6), (64, 4), (64, 1), (16, 3)])
@pytest.mark.slow
def test_the_standard_error_matches_the_spread_over_fresh_images_and_draws(steps, terms):
    n, image, model, means, claimed = 64, ImageShape(1, 4, 4, 32), gaussian_model(ImageShape(1, 4, 4, 32)), [], []
    for repeat in range(200):
        levels = ((0.2 * STREAMS.normal((n, 1, 4, 4), "pixels", repeat) + 1) * 16).long().clamp(0, 31)
        bound = bound_of(model, levels, image, SCHEDULES["linear"], repeat, steps, terms)
        means.append(bound.total.double().mean())
        claimed.append(standard_error([bound]))
    assert sum(claimed) / len(claimed) == pytest.approx(float(torch.stack(means).std()), rel=0.15)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (127.5, 127.5), (3.0, -7.0)])
def test_bits_do_not_depend_on_the_range_of_the_models_pixels(float64, a, b):
    image = ImageShape(1, 4, 4, 32)
    levels = (STREAMS.uniform((16, *image.tensor_shape), "levels") * 32).long()
    items, times = Trajectories.numbered(STREAMS, 0, 16), STREAMS.low_discrepancy(16, "t").double()
    schedule, other, same = SCHEDULES["linear"], OtherRange(a, b, image), OtherRange(1.0, 0.0, image)
    for bound in (
        lambda model: continuous_bound(model, schedule, image, levels, times, items),
        lambda model: discrete_bound(model, schedule, image, levels, times, items, steps=30, terms=30),
    ):
        assert float((bound(other).total - bound(same).total).abs().max()) < 1e-6


def test_the_noise_scale_and_signal_scale_are_those_of_the_schedule(float64):
    """z of each term is α x + σ ε at the noisier end of its step."""
    seen = []

    class Recorder:
        def __call__(self, z, log_snr, trajectories=None):
            seen.append((z, log_snr))
            return gaussian_model()(z, log_snr)

    levels, items = torch.full((2, 1, 1, 1), 40), Trajectories.numbered(STREAMS, 0, 2)
    discrete_bound(Recorder(), SCHEDULES["ddpm"], PIXEL, levels, torch.zeros(2), items, steps=4, terms=4)
    grid = grid_of(SCHEDULES["ddpm"], 4)
    for term, (z, log_snr) in enumerate(seen):
        assert log_snr.tolist() == [grid[term + 1]] * 2
        noise = items.normal((1, 1, 1), "bound/noise", term).double()
        x, at = to_pixels(levels, 64), torch.full((2,), grid[term + 1])
        assert torch.equal(z, add_noise(x, noise, at))
        assert torch.allclose(z, per_image(alpha(at), x) * x + per_image(sigma(at), x) * noise)
