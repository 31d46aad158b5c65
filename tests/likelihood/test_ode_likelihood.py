"""The likelihood by the probability flow ODE meets closed forms; divergence and integration."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest
import torch
from small_flows import (
    PAIR,
    SMALL,
    SQUARE,
    STREAMS,
    TIGHT,
    UniformExpert,
    drawn_levels,
    gaussian,
    line,
    numbered,
    ode,
    pixels_of,
    switching,
    worst,
)

from moeframe.errors import RangeError, UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.ode import OdeSolver
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.testing import GaussianExpert, PosteriorGate, gaussian_mixture


def normal_bits(values: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """-log2 N(values; mean, std²) per dimension."""
    nats = 0.5 * ((values - mean) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    return nats.flatten(1).mean(1) / math.log(2)


def scale_of(std: float, log_snr: float) -> float:
    """sqrt(α² std² + σ²)."""
    alpha2 = 1 / (1 + math.exp(-log_snr))
    return math.sqrt(alpha2 * std**2 + 1 - alpha2)


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
    with pytest.raises(RangeError, match="is valid for log-SNR -4 .. 4 but was evaluated at"):
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
