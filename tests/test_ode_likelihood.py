"""The probability-flow ODE: exact change of variables, its parts, and the mistakes that others made with it."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import truncnorm

from moeframe.diffusion import image_from_velocity, per_image, velocity_from_image
from moeframe.errors import NonFiniteError, RangeError, UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.dequantisation import dequantise, truncated_normal, truncated_normal_entropy
from moeframe.likelihood.ode import OdeLikelihood, OdeSolver, ode_likelihood
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, PosteriorGate, gaussian_mixture
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.fixed import FixedGate
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.top_k import TopKGate
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


def normal_bits(values: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """-log2 N(values; mean, std²) per dimension."""
    nats = 0.5 * ((values - mean) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    return nats.flatten(1).mean(1) / math.log(2)


def scale_of(std: float, log_snr: float) -> float:
    """sqrt(α² std² + σ²)."""
    alpha2 = 1 / (1 + math.exp(-log_snr))
    return math.sqrt(alpha2 * std**2 + 1 - alpha2)


def worst(one: torch.Tensor, two: torch.Tensor) -> float:
    assert one.shape == two.shape
    return float((one - two).abs().max())


# closed forms


@pytest.mark.parametrize("image", [PAIR, SQUARE])
@pytest.mark.parametrize(("low", "high"), [(-12, 12), (-3, 2), (1, 4)])
@pytest.mark.parametrize("how", ["uniform", "truncated_normal"])
def test_the_linear_flow_of_gaussian_data_meets_its_closed_form(image, low, high, how):
    schedule, levels = line(low, high), drawn_levels(4, image)
    result = ode(gaussian(image, std=0.3), image, schedule, levels, dequantisation=how)
    x = pixels_of(levels, image, schedule, how)
    a = math.sqrt(1 / (1 + math.exp(-high)))
    stretch = scale_of(0.3, low) / scale_of(0.3, high)
    assert worst(result.prior, normal_bits(a * stretch * x)) < 1e-6
    assert worst(result.volume, torch.full((4,), -math.log2(a * stretch), dtype=torch.float64)) < 1e-6


@pytest.mark.parametrize("image", [PAIR, SQUARE])
def test_over_a_wide_range_it_is_the_density_of_the_data(image):
    schedule, levels = line(-14, 14), drawn_levels(4, image)
    result = ode(gaussian(image, mean=0.1, std=0.3), image, schedule, levels)
    x = pixels_of(levels, image, schedule)
    assert worst(result.total, normal_bits(x, 0.1, 0.3) + math.log2(64 / 2)) < 1e-3


@pytest.mark.parametrize("divergence", ["rademacher", "gaussian", "exact"])
def test_the_total_is_the_sum_of_its_parts_in_bits_per_dimension(divergence):
    result = ode(gaussian(PAIR, std=0.3), PAIR, line(-8, 8), drawn_levels(3, PAIR), divergence=divergence)
    assert torch.equal(result.total, result.prior + result.volume + result.dequantisation)
    assert {result.prior.dtype, result.volume.dtype, result.dequantisation.dtype} == {torch.float64}
    assert torch.equal(result.dequantisation, torch.full((3,), 5.0, dtype=torch.float64))


PARTS = [
    GaussianExpert.Config(mean=-0.5, std=0.15),
    GaussianExpert.Config(mean=0.1, std=0.3),
    GaussianExpert.Config(mean=0.6, std=0.1),
]
SHARES = (0.5, 0.3, 0.2)


def mixture_bits(x: torch.Tensor) -> torch.Tensor:
    """-log2 of the mixture's density per dimension."""
    n_dims = x[0].numel()
    each = [
        math.log(share) - n_dims * math.log(2) * normal_bits(x, part.mean, part.std)
        for share, part in zip(SHARES, PARTS, strict=True)
    ]
    return -torch.logsumexp(torch.stack(each), 0) / (n_dims * math.log(2))


@pytest.mark.parametrize("image", [PAIR, SMALL])
def test_the_posterior_gate_gives_the_true_density_of_a_mixture(image):
    schedule, levels = line(-14, 14), drawn_levels(16, image)
    model = gaussian_mixture(PARTS, SHARES, image)
    result = ode(model, image, schedule, levels, solver=replace(TIGHT, rtol=1e-7, atol=1e-7))
    assert worst(result.total, mixture_bits(pixels_of(levels, image, schedule)) + math.log2(64 / 2)) < 1e-3


class DetachedGate(PosteriorGate):
    """The same weights without their gradient by the noisy image."""

    class Config(PosteriorGate.Config):
        type: Literal["detached"] = "detached"

    def forward(self, z, log_snr):
        return super().forward(z.detach(), log_snr)


def test_without_the_gates_gradient_the_density_is_wrong():
    schedule, levels = line(-14, 14), drawn_levels(16, PAIR)
    model = gaussian_mixture(PARTS, SHARES, PAIR)
    detached = DetachedGate(DetachedGate.Config(slices=tuple(PARTS), shares=SHARES), image=PAIR, n_experts=3)
    wrong = ode(MergedDenoiser([*model.experts], detached), PAIR, schedule, levels, solver=OdeSolver())
    truth = mixture_bits(pixels_of(levels, PAIR, schedule)) + math.log2(64 / 2)
    assert float((wrong.total - truth).abs().mean()) > 0.1


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


def test_a_model_of_uniform_pixels_spends_the_uniform_code_on_every_level():
    """log2 L bits whatever the level: 255 for 256 levels, or an entropy left out, would show."""
    image = ImageShape(1, 1, 2, 256)
    levels = torch.tensor([[[[7, 128]]], [[[64, 200]]], [[[31, 240]]]])
    model = MergedDenoiser([UniformExpert(UniformExpert.Config(), image=image)])
    result = ode(
        model, image, line(-10, 12), levels, solver=OdeSolver(rtol=1e-7, atol=1e-7, network_dtype=torch.float64)
    )
    assert worst(result.total, torch.full((3,), 8.0, dtype=torch.float64)) < 1e-3


def test_twice_the_levels_cost_one_bit_more():
    finer, coarser = (
        ode(gaussian(PAIR, std=0.3), replace(PAIR, levels=n), line(-8, 8), torch.full((1, 1, 1, 2), n // 2))
        for n in (2**15, 2**14)
    )
    assert worst(finer.total, coarser.total + 1) < 1e-3


# divergence


def test_hutchinsons_estimate_is_unbiased_for_both_probes():
    image, n = PAIR, 2000
    levels = drawn_levels(8, image).repeat(n // 8, 1, 1, 1)
    model = gaussian_mixture(PARTS, SHARES, image)
    solver = OdeSolver(method="rk4", steps=16, network_dtype=torch.float64)
    exact = ode(model, image, line(-8, 8), levels, solver=solver).volume
    spread = {}
    for divergence in ("rademacher", "gaussian"):
        error = ode(model, image, line(-8, 8), levels, solver=solver, divergence=divergence).volume - exact
        spread[divergence] = float(error.std())
        assert abs(float(error.mean())) < 3 * spread[divergence] / math.sqrt(n)
    assert 0.01 < spread["rademacher"] < spread["gaussian"]


def test_random_signs_have_no_variance_where_pixels_do_not_mix():
    results = [
        ode(gaussian(SQUARE, std=0.2), SQUARE, line(-8, 8), drawn_levels(2, SQUARE), divergence=divergence).volume
        for divergence in ("exact", "rademacher")
    ]
    assert worst(*results) < 1e-9


def test_the_exact_divergence_of_many_dimensions_is_refused():
    image = ImageShape(3, 16, 16, 64)
    message = "divergence: exact takes a backward pass for each of 768 dimensions, more than 256; use .*: rademacher"
    with pytest.raises(UnavailableError, match=message):
        ode(gaussian(image), image, line(-8, 8), drawn_levels(1, image))


# dequantisation


@pytest.mark.parametrize("reach", [1e-9, 1e-3, 0.3, 1.0, 3.0, 8.0, 30.0])
def test_the_entropy_of_the_truncated_normal_meets_quadrature(reach):
    mass = math.erf(reach / math.sqrt(2))
    height = 1 / (math.sqrt(2 * math.pi) * mass)

    def integrand(u: float) -> float:
        log_density = math.log(height) - 0.5 * u**2
        return -math.exp(log_density) * log_density

    span = min(reach, 12.0)
    area, _ = quad(integrand, -span, span, epsabs=0, epsrel=1e-12, limit=200)
    assert truncated_normal_entropy(reach) == pytest.approx(area, abs=1e-9)


@pytest.mark.parametrize("reach", [0.01, 1.0, 4.0, 37.0, 1e9])
def test_the_truncated_normal_is_sampled_by_its_inverse_distribution(reach):
    units = torch.linspace(-1, 1, 1001, dtype=torch.float64)[1:-1]
    expected = torch.from_numpy(truncnorm.ppf((units.numpy() + 1) / 2, -reach, reach))
    assert torch.allclose(truncated_normal(units, reach), expected, rtol=1e-6, atol=1e-9 * min(reach, 1.0))
    assert bool((truncated_normal(units, reach).diff() > 0).all())


@settings(deadline=None, max_examples=60)
@given(
    how=st.sampled_from(["uniform", "truncated_normal"]),
    n_levels=st.sampled_from([2, 17, 256, 32768]),
    log_snr=st.floats(-60, 60),
    seed=st.integers(0, 10_000),
)
def test_dequantised_pixels_stay_in_their_bins(how, n_levels, log_snr, seed):
    levels = torch.randint(n_levels, (3, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    items = Trajectories.numbered(Streams(seed), 0, 3)
    pixels = dequantise(levels, n_levels, how, log_snr, items).pixels
    assert torch.equal(((pixels + 1) * n_levels / 2).floor().long(), levels)


class Constant(Streams):
    """Uniform draws that are all the least or all the largest there can be."""

    def uniform(self, shape, purpose, *address):
        return torch.full(tuple(shape), self.seed * (1 - 2**-24))


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("how", ["uniform", "truncated_normal"])
@pytest.mark.parametrize("n_levels", [2, 17, 256, 32768])
def test_the_outermost_draws_stay_in_the_bin(how, end, n_levels):
    levels = torch.arange(n_levels).view(1, 1, 1, -1)
    items = Trajectories.numbered(Constant(end), 0, 1)
    pixels = dequantise(levels, n_levels, how, 5.0, items).pixels
    assert torch.equal(((pixels + 1) * n_levels / 2).floor().long(), levels)


def test_under_strong_noise_the_truncated_normal_is_uniform():
    levels = drawn_levels(4, SQUARE)
    uniform, truncated = (dequantise(levels, 64, how, -20.0, numbered(4)) for how in ("uniform", "truncated_normal"))
    assert worst(uniform.pixels, truncated.pixels) < 1e-6
    assert uniform.bits_per_dim == 5
    assert truncated.bits_per_dim == pytest.approx(5, abs=1e-6)


def test_uniform_noise_fills_the_bin_evenly():
    levels = torch.full((1000, 1, 4, 4), 5)
    offsets = (pixels_of(levels, replace(SMALL, levels=8), line(-5, 5)) + 1) * 4 - 5
    counts = torch.histc(offsets.float(), 10, 0, 1)
    assert float(((counts - 1600) ** 2 / 1600).sum()) < 27.9  # chi-square with 9 degrees of freedom, p = 0.001


def test_truncated_normal_noise_reaches_the_code_length_of_a_model_of_levels():
    """A model that knows the data to be four levels sees spikes: even noise over the bins leaves them."""
    image = ImageShape(1, 1, 1, 4)
    parts = [GaussianExpert.Config(mean=(2 * i + 1) / 4 - 1, std=1e-3) for i in range(4)]
    model, schedule = gaussian_mixture(parts, (0.25,) * 4, image), line(-10, 5)
    levels = torch.arange(4).repeat(50).view(-1, 1, 1, 1)
    solver = replace(TIGHT, rtol=1e-6, atol=1e-6)
    uniform, truncated = (
        ode(model, image, schedule, levels, dequantisation=how, solver=solver)
        for how in ("uniform", "truncated_normal")
    )
    assert float(truncated.total.mean()) == pytest.approx(2, abs=0.1)
    assert float(uniform.total.mean()) > float(truncated.total.mean()) + 0.2
    assert float(uniform.total.mean()) > 2


# integration


@pytest.mark.slow
def test_the_fixed_step_solver_converges_to_the_adaptive_one_at_order_four():
    levels, schedule = drawn_levels(8, PAIR), line(-5, 5)
    model = gaussian_mixture(PARTS, SHARES, PAIR)
    truth = ode(model, PAIR, schedule, levels, solver=replace(TIGHT, rtol=1e-10, atol=1e-10)).total
    errors = [
        worst(ode(model, PAIR, schedule, levels, solver=replace(TIGHT, method="rk4", steps=n)).total, truth)
        for n in (16, 32, 64)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert errors[-1] < 1e-6
    assert all(3.4 < order < 4.6 for order in orders)


def test_what_was_spent_is_counted():
    levels = drawn_levels(5, PAIR)
    model = gaussian_mixture(PARTS, SHARES, PAIR)
    fixed = ode(model, PAIR, line(-4, 4), levels, solver=replace(TIGHT, method="rk4", steps=7))
    assert (fixed.function_evaluations, fixed.network_calls) == (28, 28 * 5 * 3)
    loose, tight = (
        ode(model, PAIR, line(-4, 4), levels, solver=replace(TIGHT, rtol=tolerance, atol=tolerance))
        for tolerance in (1e-3, 1e-8)
    )
    assert 6 < loose.function_evaluations < tight.function_evaluations


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


@pytest.mark.parametrize("network_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_the_flow_through_a_switch_is_its_two_pieces(method, network_dtype):
    low, high, at, levels = -6, 6, 0.3, drawn_levels(4, PAIR)
    a = math.sqrt(1 / (1 + math.exp(-high)))
    first, second = scale_of(0.2, at) / scale_of(0.2, high), scale_of(0.6, low) / scale_of(0.6, at)
    x = pixels_of(levels, PAIR, line(low, high))
    truth = normal_bits(a * first * second * x) - math.log2(a * first * second) + 5
    solver = OdeSolver(method, rtol=1e-7, atol=1e-7, steps=64, network_dtype=network_dtype)
    told, untold = (ode(switching(at=at, told=t), PAIR, line(low, high), levels, solver=solver) for t in (True, False))
    error = worst(told.total, truth)
    assert error < (1e-6 if network_dtype == torch.float64 else 1e-5)
    if method == "rk4":
        assert worst(untold.total, truth) > 100 * error
    else:
        assert untold.function_evaluations > told.function_evaluations


def test_switches_outside_the_range_cut_nothing():
    levels, schedule = drawn_levels(2, PAIR), line(-4, 4)
    beyond = ode(switching(at=4.0), PAIR, schedule, levels)
    assert worst(beyond.total, ode(gaussian(PAIR, std=0.6), PAIR, schedule, levels).total) < 1e-12
    assert beyond.function_evaluations == ode(switching(at=9.0), PAIR, schedule, levels).function_evaluations


def test_the_denoiser_is_never_asked_outside_the_range():
    class Narrow(GaussianExpert):
        class Config(GaussianExpert.Config):
            type: Literal["narrow_gaussian"] = "narrow_gaussian"

        @property
        def log_snr_range(self):
            return (-4.0, 4.0)

    model = MergedDenoiser([Narrow(Narrow.Config(std=0.3), image=PAIR)])
    result = ode(model, PAIR, line(-4, 4), drawn_levels(2, PAIR), solver=OdeSolver(rtol=1e-2, atol=1e-2))
    assert bool(result.total.isfinite().all())
    with pytest.raises(RangeError, match="is valid for log-SNR -4 .. 4 but was asked at"):
        ode(model, PAIR, line(-4, 5), drawn_levels(2, PAIR))


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("divergence", ["rademacher", "exact"])
@pytest.mark.slow
def test_an_image_has_its_result_in_any_batch(method, divergence):
    levels, schedule = drawn_levels(4, PAIR), line(-6, 6)
    model = gaussian_mixture(PARTS, SHARES, PAIR)
    solver = OdeSolver(method, rtol=1e-7, atol=1e-7, steps=8, network_dtype=torch.float64)
    whole = ode(model, PAIR, schedule, levels, solver=solver, divergence=divergence).total
    alone = [
        ode(model, PAIR, schedule, levels[i : i + 1], solver=solver, divergence=divergence, items=numbered(1, i)).total
        for i in range(4)
    ]
    order = torch.tensor([3, 1, 0, 2])
    moved = ode(
        model, PAIR, schedule, levels[order], solver=solver, divergence=divergence, items=Trajectories(STREAMS, order)
    ).total
    tolerance = 1e-6 if method == "dopri5" else 1e-12
    assert worst(torch.cat(alone), whole) < tolerance
    assert worst(moved, whole[order]) < tolerance


@pytest.mark.slow
def test_many_easy_images_do_not_hide_the_error_of_a_hard_one():
    parts = [GaussianExpert.Config(mean=mean, std=0.05) for mean in (-0.5, 0.5)]
    model, levels = gaussian_mixture(parts, (0.5, 0.5), PAIR), torch.full((200, 1, 1, 2), 48)
    levels[0, 0, 0, 0] = 16  # between the parts, where the flow divides
    solver = replace(TIGHT, rtol=1e-4, atol=1e-4)
    alone, hidden = (ode(model, PAIR, line(-8, 8), levels[:n], solver=solver) for n in (1, len(levels)))
    assert hidden.function_evaluations >= 0.9 * alone.function_evaluations


def test_other_items_draw_other_noise():
    levels, model = drawn_levels(2, PAIR), gaussian(PAIR, std=0.3)
    totals = [ode(model, PAIR, line(-8, 8), levels, items=numbered(2, start)).total for start in (0, 0, 2)]
    assert torch.equal(totals[0], totals[1])
    assert not torch.isclose(totals[0], totals[2]).any()


# what it is given


def learned(gate: Gate, image: ImageShape) -> MergedDenoiser:
    config = UNetExpert.Config(channels=4, channel_multipliers=[1])
    experts = [stirred(lambda: UNetExpert(config, image=image), seed).eval() for seed in range(gate.n_experts)]
    return MergedDenoiser(experts, gate).eval()


@pytest.mark.slow
def test_networks_in_single_precision_come_close_to_double():
    image, levels, schedule = ImageShape(1, 4, 4, 16), drawn_levels(3, ImageShape(1, 4, 4, 16)), line(-6, 6)
    gate = stirred(lambda: SoftmaxGate(SoftmaxGate.Config(width=4), image=image, n_experts=2))
    model, solver = learned(gate, image), OdeSolver(method="rk4", steps=12)
    single = ode(model, image, schedule, levels, solver=solver)
    double = ode(model.double(), image, schedule, levels, solver=replace(solver, network_dtype=torch.float64))
    assert 0 < worst(single.total, double.total) < 1e-5
    assert all(parameter.grad is None for parameter in model.parameters())


JUMPS = (
    "the weights of gate {} jump, and the change of variables does not hold where the flow jumps; "
    "use method: continuous, whose bound needs no continuity"
)


@pytest.mark.parametrize(
    ("component", "config"),
    [(TopKGate, {"k": 1}), (TopKGate, {"k": 2}), (RandomGate, {}), (RandomGate, {"redraw": "per_sample"})],
)
def test_a_gate_whose_weights_jump_is_refused(component, config):
    image = ImageShape(1, 4, 4, 16)
    model = learned(component(component.Config(**config), image=image, n_experts=3), image)
    assert not model.gate.continuous
    with pytest.raises(UnavailableError) as refusal:
        ode(model, image, line(-6, 6), drawn_levels(1, image))
    assert str(refusal.value) == JUMPS.format(component.name())


class Holding(Expert):
    """A whole mixture as one expert, as `type: run` reads one."""

    class Config(Expert.Config):
        type: Literal["holding"] = "holding"

    def __init__(self, inner: MergedDenoiser, image: ImageShape):
        super().__init__(self.Config(), image=image)
        self.inner = inner

    @property
    def jumps(self):
        return self.inner.jumps

    def forward(self, z, log_snr):
        return self.inner(z, log_snr).velocity


def test_a_gate_inside_an_expert_is_seen_by_the_flow():
    """A mixture of mixtures: its inner switch cuts the way, and an inner gate that jumps is refused."""
    levels, solver = drawn_levels(3, PAIR), OdeSolver("rk4", steps=16, network_dtype=torch.float64)
    inner = switching(at=0.3)
    outer = MergedDenoiser([Holding(inner, PAIR)])
    assert outer.jumps.at == (0.3,)
    one, two = (ode(model, PAIR, line(-6, 6), levels, solver=solver) for model in (inner, outer))
    assert torch.equal(one.total, two.total)
    gate = TopKGate(TopKGate.Config(k=1), image=PAIR, n_experts=2)
    parts = [GaussianExpert(GaussianExpert.Config(std=std), image=PAIR) for std in (0.2, 0.6)]
    nested = MergedDenoiser([Holding(MergedDenoiser(parts, gate), PAIR)])
    with pytest.raises(UnavailableError) as refusal:
        ode(nested, PAIR, line(-6, 6), levels)
    assert str(refusal.value) == JUMPS.format("top_k inside expert 0")


def test_the_way_is_cut_where_an_excluded_expert_ends():
    class Narrow(GaussianExpert):
        @property
        def log_snr_range(self):
            return (-2.0, math.inf)

    config = GaussianExpert.Config(std=0.2, outside="exclude")
    parts = [GaussianExpert(GaussianExpert.Config(std=0.6), image=PAIR), Narrow(config, image=PAIR)]
    gate = FixedGate(FixedGate.Config(weights=((0.5, 0.5),)), image=PAIR, n_experts=2)
    model, levels = MergedDenoiser(parts, gate), drawn_levels(3, PAIR)
    assert model.jumps.at == pytest.approx((-2.0,), abs=1e-3)
    fine, coarse = (
        ode(model, PAIR, line(-6, 6), levels, solver=OdeSolver("rk4", steps=n, network_dtype=torch.float64)).total
        for n in (256, 64)
    )
    assert worst(coarse, fine) < 1e-5  # of order four, which a jump inside a step is not


@pytest.mark.slow
def test_a_top_k_gate_that_keeps_all_experts_is_the_soft_gate():
    image = ImageShape(1, 4, 4, 16)
    top_k = TopKGate(TopKGate.Config(k=3, width=4), image=image, n_experts=3)
    soft = SoftmaxGate(SoftmaxGate.Config(width=4), image=image, n_experts=3)
    top_k.load_state_dict(stirred(lambda: soft).state_dict())
    solver, levels = OdeSolver(method="rk4", steps=8), drawn_levels(2, image)
    totals = [ode(learned(gate, image), image, line(-6, 6), levels, solver=solver).total for gate in (top_k, soft)]
    assert top_k.continuous
    assert worst(*totals) < 1e-5


class Spoilt(GaussianExpert):
    """Answers with what is no number, or without a gradient, or with noise of its own."""

    class Config(GaussianExpert.Config):
        type: Literal["spoilt"] = "spoilt"
        how: Literal["nan", "detached", "rough"]

    def forward(self, z, log_snr):
        velocity = super().forward(z, log_snr)
        match self.config.how:
            case "nan":
                return velocity * math.nan
            case "detached":
                return velocity.detach()
            case "rough":
                return velocity + torch.where((1e9 * z).sin() > 0, 1.0, -1.0)


def spoilt(how: str) -> MergedDenoiser:
    return MergedDenoiser([Spoilt(Spoilt.Config(how=how), image=PAIR)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("nan", NonFiniteError, "the velocity or its divergence is not a number at log-SNR 4"),
        ("detached", UnavailableError, "prediction carries no gradient by its noisy image.*use method: continuous"),
        ("rough", UnavailableError, r"dopri5 cannot keep rtol 1e-09, atol 1e-09 between log-SNR -4 and 4 .*use rk4"),
    ],
)
def test_a_denoiser_that_cannot_be_followed_is_named(how, error, message, monkeypatch):
    monkeypatch.setattr("moeframe.likelihood.ode.MOST_STEPS", 200)
    with pytest.raises(error, match=message):
        ode(spoilt(how), PAIR, line(-4, 4), drawn_levels(1, PAIR))


def test_a_range_without_end_is_refused():
    class Endless(LinearSchedule):
        @property
        def log_snr_max(self):
            return math.inf

    schedule = Endless(LinearSchedule.Config(log_snr_min=-4, log_snr_max=4))
    with pytest.raises(
        UnavailableError, match="the ODE needs a finite log-SNR range, not -4 .. inf; set the schedule's"
    ):
        ode(gaussian(PAIR), PAIR, schedule, drawn_levels(1, PAIR))


def test_the_oracle_of_uniform_pixels_predicts_the_mean():
    z = torch.tensor([[[[0.9, -0.2]]]], dtype=torch.float64)
    log_snr = torch.tensor([1.0], dtype=torch.float64)
    a, s = math.sqrt(1 / (1 + math.exp(-1))), math.sqrt(1 / (1 + math.exp(1)))
    x = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    likelihood = torch.exp(-0.5 * ((z.flatten()[:, None] - a * x) / s) ** 2)
    mean = (likelihood * x).sum(1) / likelihood.sum(1)
    velocity = UniformExpert(UniformExpert.Config(), image=PAIR)(z, log_snr)
    assert worst(image_from_velocity(velocity, z, log_snr).flatten(), mean) < 1e-4
