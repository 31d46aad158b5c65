"""The built-in terms of the objective."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.diffusion import add_noise, velocity_of
from moeframe.errors import DataError
from moeframe.interfaces.denoiser import Denoised
from moeframe.interfaces.gate import Routing
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.randomness import Streams
from moeframe_builtin.losses.entropy import EntropyLoss
from moeframe_builtin.losses.load_balance import LoadBalanceLoss
from moeframe_builtin.losses.mutual_info import MutualInfoLoss
from moeframe_builtin.losses.nll import NllLoss
from moeframe_builtin.losses.slice_alignment import SliceAlignmentLoss
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule

LINE = LinearSchedule(LinearSchedule.Config())
STREAMS = Streams(0)

simplices = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6).map(
    lambda rows: torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float64) + 1e-9, p=1, dim=1)
)


def step(weights: torch.Tensor, predicted: torch.Tensor | None = None, schedule=LINE) -> TrainingStep:
    n = len(weights)
    x, noise = (STREAMS.normal((n, 1, 4, 4), part) for part in ("x", "noise"))
    times = STREAMS.low_discrepancy(n, "times")
    log_snr = schedule.log_snr(times)
    velocity = velocity_of(x, noise, log_snr)
    denoised = Denoised(velocity + 1 if predicted is None else predicted, Routing(weights, weights), ())
    z = add_noise(x, noise, log_snr)
    return TrainingStep(x, z, log_snr, schedule.rate(times), velocity, denoised, torch.zeros(n, dtype=torch.long))


def loss(component: type[Loss], shares=(0.5, 0.3, 0.2), schedule=LINE, **settings) -> Loss:
    return component(component.Config(**settings), schedule=schedule, slice_shares=shares)


# load_balance


@pytest.mark.parametrize("prior", ["uniform", "slices"])
def test_load_balance_is_zero_at_its_prior(prior):
    target = torch.tensor([0.5, 0.3, 0.2] if prior == "slices" else [1 / 3] * 3, dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64).repeat_interleave((target * 30).round().long(), 0)
    for weights in (target.expand(4, 3), one_hot):  # balance on average is what counts
        assert float(loss(LoadBalanceLoss, prior=prior)(step(weights))) == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(weights=simplices, prior=st.sampled_from(["uniform", "slices"]))
def test_load_balance_is_never_below_zero(weights, prior):
    assert float(loss(LoadBalanceLoss, prior=prior)(step(weights))) >= -1e-9


def test_load_balance_at_a_collapsed_gate_is_the_log_of_the_number_of_experts():
    collapsed = torch.tensor([[1.0, 0.0, 0.0]]).expand(5, 3)
    assert float(loss(LoadBalanceLoss)(step(collapsed))) == pytest.approx(math.log(3))


def test_load_balance_against_slices_needs_as_many_slices_as_experts():
    with pytest.raises(DataError) as error:
        loss(LoadBalanceLoss, shares=(1.0,), prior="slices")(step(torch.full((2, 4), 0.25)))
    assert str(error.value) == (
        "load_balance: prior 'slices' has 1 slice for 4 experts; add a section 'slicer', or use prior: uniform"
    )


# entropy


def test_entropy_is_zero_at_the_uniform_gate_and_log_k_at_a_decided_one():
    assert float(loss(EntropyLoss)(step(torch.full((4, 3), 1 / 3)))) == pytest.approx(0, abs=1e-6)
    assert float(loss(EntropyLoss)(step(torch.eye(3)))) == pytest.approx(math.log(3))


@settings(deadline=None)
@given(weights=simplices)
def test_entropy_lies_between_zero_and_log_k(weights):
    assert -1e-9 <= float(loss(EntropyLoss)(step(weights))) <= math.log(3) + 1e-9


@pytest.mark.parametrize("component", [EntropyLoss, LoadBalanceLoss])
def test_gradients_are_finite_at_one_hot_weights_and_vanish_at_the_optimum(component):
    logits = torch.tensor([[1e4, 0.0, -1e4]]).repeat(4, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(component)(step(logits.softmax(1))), logits)
    assert bool(gradient.isfinite().all())
    even = torch.zeros(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(component)(step(even.softmax(1))), even)
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("component", [EntropyLoss, LoadBalanceLoss])
def test_regularisers_look_at_the_probabilities_before_the_cut_to_top_k(component):
    uniform, cut = torch.full((2, 3), 1 / 3), torch.tensor([[0.5, 0.5, 0.0]]).expand(2, 3)
    facts = step(uniform)
    facts = TrainingStep(
        facts.x,
        facts.z,
        facts.log_snr,
        facts.rate,
        facts.velocity,
        Denoised(facts.velocity, Routing(cut, uniform), ()),
        facts.slices,
    )
    assert float(loss(component)(facts)) == pytest.approx(0, abs=1e-6)


# nll


@pytest.mark.parametrize("weighting", ["vlb", "simple", "edm", "min_snr"])
def test_nll_is_zero_at_the_true_velocity_only(weighting):
    weights = torch.ones(8, 1)
    exact = step(weights)
    term = loss(NllLoss, weighting=weighting)
    assert float(term(step(weights, exact.velocity))) == 0
    assert float(term(exact)) > 0


def test_simple_is_the_plain_mean_squared_error_of_the_noise_up_to_one_factor():
    """DDPM's loss: the factor is the same at every time, so the ratio to the ε-error is constant."""
    schedule = DdpmSchedule(DdpmSchedule.Config())
    facts = step(torch.ones(32, 1), schedule=schedule)
    squares = torch.sigmoid(facts.log_snr) * (facts.velocity - facts.denoised.velocity).square().flatten(1).sum(1)
    ratio = loss(NllLoss, schedule=schedule, weighting="simple").per_item(facts) / squares
    assert torch.allclose(ratio, ratio[0].expand(32), rtol=1e-4)


def test_min_snr_is_simple_capped_at_its_snr():
    schedule = LINE
    log_snr, rate = torch.linspace(-9, 9, 19), torch.full((19,), 20.0)
    capped = loss(NllLoss, weighting="min_snr", snr_cap=5.0, schedule=schedule).weight(log_snr, rate)
    plain = loss(NllLoss, weighting="simple", schedule=schedule).weight(log_snr, rate)
    ratio = capped / plain
    assert torch.allclose(ratio / ratio[0], (5 * torch.exp(-log_snr)).clamp(max=1), rtol=1e-5)


def test_edm_weights_the_image_error_as_published():
    """Karras et al. 2022: λ(σ) = (σ² + σd²) / (σ σd)² on ‖D - x‖², with ln σ ~ N(-1.2, 1.2²)."""
    noise = torch.logspace(-2, 1.5, 15, dtype=torch.float64)
    log_snr, data = -2 * noise.log(), 0.5
    density = torch.distributions.Normal(-1.2, 1.2).log_prob(noise.log()).exp()
    on_image_error = density * (noise**2 + data**2) / (noise * data) ** 2
    ours = loss(NllLoss, weighting="edm", sigma_data=data).weight(log_snr, torch.full_like(log_snr, 20.0))
    ratio = ours / (on_image_error * noise**2)  # ‖D - x‖² = σ² ‖ε - ε̂‖²
    assert torch.allclose(ratio, ratio[0].expand(15), rtol=1e-6)


def test_nll_is_in_bits_per_channel_and_pixel():
    """An error of one in each dimension's noise, everywhere, is ½ (λmax - λmin) nats per dimension."""
    facts = step(torch.ones(64, 1))
    off = facts.velocity + (1 / torch.sigmoid(facts.log_snr).sqrt()).view(-1, 1, 1, 1)
    assert float(loss(NllLoss)(step(torch.ones(64, 1), off))) == pytest.approx(0.5 * 20 / math.log(2), rel=1e-4)


# slice_alignment and mutual_info


def test_slice_alignment_is_the_cross_entropy_of_the_gate_against_the_slices():
    weights = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])  # `step` says that every image is of slice 0
    assert float(loss(SliceAlignmentLoss)(step(weights))) == pytest.approx(0.5 * math.log(2))
    assert float(loss(SliceAlignmentLoss)(step(torch.eye(3)[:1]))) == 0


def test_slice_alignment_without_a_slice_per_expert_is_refused():
    with pytest.raises(DataError, match="slice_alignment: 1 slice for 3 experts; add a section 'slicer'"):
        loss(SliceAlignmentLoss, shares=(1.0,))(step(torch.eye(3)))


def test_mutual_info_is_zero_when_decided_and_balanced_and_log_k_when_the_image_says_nothing():
    decided = torch.eye(3).repeat(4, 1)
    assert float(loss(MutualInfoLoss)(step(decided))) == pytest.approx(0, abs=1e-6)
    for silent in (
        torch.full((6, 3), 1 / 3),
        torch.tensor([[0.7, 0.2, 0.1]]).expand(6, 3),
        torch.eye(3)[:1].expand(6, 3),
    ):
        assert float(loss(MutualInfoLoss)(step(silent))) == pytest.approx(math.log(3), abs=1e-6)


@settings(deadline=None)
@given(weights=simplices)
def test_mutual_info_is_never_below_zero(weights):
    assert float(loss(MutualInfoLoss)(step(weights))) >= -1e-9
