"""Where to switch between experts follows from their own errors: exact, by additivity, without sampling."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.errors import RangeError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import ExpertErrors
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.switching import (
    band_of,
    best_thresholds,
    concatenate,
    error_curves,
    expert_errors,
    switched_bits,
)
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe_builtin.gates.switch import SwitchGate
from moeframe_builtin.schedules.linear import LinearSchedule

IMAGE = ImageShape(channels=1, height=4, width=4, levels=8)
SCHEDULE = LinearSchedule(LinearSchedule.Config(log_snr_min=-6, log_snr_max=6))
STREAMS = Streams(0)
N = 64
DRAWS = SimpleNamespace(
    levels=(STREAMS.uniform((N, *IMAGE.tensor_shape), "levels") * 8).long(),
    times=STREAMS.low_discrepancy(N, "times"),
    items=Trajectories.numbered(STREAMS, 0, N),
)


@pytest.fixture(scope="module")
def stated(on_disk):
    return on_disk("stated_expert").load().StatedExpert


def merged(stated, best_at, eta="auto", **config) -> MergedDenoiser:
    experts = [stated(stated.Config(best_at=at, **config), image=IMAGE) for at in best_at]
    gate = SwitchGate(SwitchGate.Config(eta=eta), image=IMAGE, n_experts=len(experts))
    return MergedDenoiser(experts, gate).eval()


def errors_of(model) -> ExpertErrors:
    return expert_errors(model, SCHEDULE, IMAGE, DRAWS.levels, DRAWS.times, DRAWS.items)


def bound_of(model):
    """A full evaluation of the merge."""
    return continuous_bound(model, SCHEDULE, IMAGE, DRAWS.levels, DRAWS.times, DRAWS.items)


@pytest.mark.parametrize("eta", [-5.9, -2.0, 0.31, 4.5, math.inf, -math.inf])
def test_the_bound_of_a_switch_is_added_up_from_the_errors_of_its_experts(stated, eta):
    model = merged(stated, (-2.0, 3.0))
    model.gate.switch_at((eta,))
    added = switched_bits(errors_of(model), (eta,))
    assert torch.allclose(added, bound_of(model).diffusion.double(), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_auto_is_the_minimum_of_full_evaluations_over_a_fine_grid(stated):
    """64 draws over 12 units of log-SNR are 0.19 apart, so a grid of step 0.05 has a point between any two."""
    model = merged(stated, (-2.0, 3.0))
    model.gate.calibrate(errors_of(model))
    (found,) = model.gate.switches
    at_found = float(bound_of(model).total.double().mean())
    grid = torch.arange(-6, 6, 0.05, dtype=torch.float64).tolist()
    totals = []
    for eta in grid:
        model.gate.switch_at((eta,))
        totals.append(float(bound_of(model).total.double().mean()))
    best = min(totals)
    assert at_found == pytest.approx(best, abs=1e-7)
    assert best < min(totals[0], totals[-1]) - 1e-3, "the switch is worth something"
    nearest = [eta for eta, total in zip(grid, totals, strict=True) if total < best + 1e-7]
    assert min(nearest) - 0.2 <= found <= max(nearest) + 0.2


def test_auto_with_three_experts_is_the_minimum_over_every_pair_of_thresholds(stated):
    model = merged(stated, (-4.0, 0.0, 4.0))
    errors = errors_of(model)
    found = best_thresholds(errors)
    grid = torch.arange(-6, 6, 0.15, dtype=torch.float64).tolist()
    pairs = [(a, b) for a, b in itertools.product(grid, grid) if a <= b]
    best = min(float(switched_bits(errors, pair).mean()) for pair in pairs)
    assert float(switched_bits(errors, found).mean()) == pytest.approx(best, abs=1e-9)
    model.gate.switch_at(found)
    assert float(bound_of(model).diffusion.double().mean()) == pytest.approx(best, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 7), k=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_thresholds_are_as_good_as_the_best_of_all_orderly_assignments(n, k, seed):
    streams = Streams(seed)
    errors = ExpertErrors(streams.permutation(n, "λ").float(), streams.uniform((n, k), "bits").double())
    thresholds = best_thresholds(errors)
    assert len(thresholds) == k - 1
    assert list(thresholds) == sorted(thresholds)
    rows = errors.bits[errors.log_snr.argsort()]
    bands = (bands for bands in itertools.product(range(k), repeat=n) if list(bands) == sorted(bands))
    best = min(sum(float(row[band]) for row, band in zip(rows, each, strict=True)) for each in bands)
    assert float(switched_bits(errors, thresholds).sum()) == pytest.approx(best, abs=1e-12)


def test_draws_at_one_log_snr_are_never_parted():
    errors = ExpertErrors(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[0.0, 5.0], [9.0, 1.0], [0.0, 1.0]]).double())
    assert best_thresholds(errors) == (-math.inf,), "7 bits with the second expert, 9 with the first"


def test_of_equal_experts_the_first_is_used_alone(stated):
    assert best_thresholds(errors_of(merged(stated, (1.0, 1.0, 1.0)))) == (math.inf, math.inf)


def test_an_expert_that_is_worse_everywhere_gets_no_band(stated):
    errors = errors_of(merged(stated, (0.0, 90.0)))
    assert best_thresholds(errors) == (math.inf,)
    flipped = ExpertErrors(errors.log_snr, errors.bits.flip(1))
    assert best_thresholds(flipped) == (-math.inf,)


def test_an_expert_is_not_asked_outside_its_range_and_the_switch_keeps_within_it(stated):
    model = merged(stated, (-2.0, 3.0))
    model.experts[1].config = stated.Config(best_at=3.0, valid=(1.5, 100.0))
    errors = errors_of(model)
    assert torch.equal(errors.bits[:, 1].isinf(), errors.log_snr < 1.5)
    (found,) = best_thresholds(errors)
    assert found == 1.5, "the draws around are at 1.38 and 1.57, but the expert is not to be asked below 1.5"
    model.experts[1].config = stated.Config(best_at=3.0, valid=(1.5, 100.0), outside="clamp")
    assert bool(errors_of(model).bits.isfinite().all())


def test_experts_in_the_wrong_order_are_refused_when_no_switch_keeps_their_ranges(stated):
    model = merged(stated, (3.0, -2.0))
    model.experts[0].config = stated.Config(best_at=3.0, valid=(0.0, 100.0))
    model.experts[1].config = stated.Config(best_at=-2.0, valid=(-100.0, 0.0))
    with pytest.raises(RangeError, match="no switch keeps every expert within its log-SNR range: list the experts"):
        best_thresholds(errors_of(model))


def test_errors_do_not_depend_on_the_batches(stated):
    model = merged(stated, (-2.0, 3.0))
    parts = [
        expert_errors(
            model,
            SCHEDULE,
            IMAGE,
            DRAWS.levels[start : start + 24],
            DRAWS.times[start : start + 24],
            Trajectories(STREAMS, DRAWS.items.ids[start : start + 24]),
        )
        for start in range(0, N, 24)
    ]
    whole, pieces = errors_of(model), concatenate(parts)
    assert torch.equal(whole.log_snr, pieces.log_snr)
    assert torch.allclose(whole.bits, pieces.bits)


def test_a_band_begins_at_its_threshold():
    at = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    log_snr = torch.tensor([-9.0, -1.001, -1.0, 0.0, 1.999, 2.0, 9.0])
    assert band_of(log_snr, at).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_error_curves_are_means_of_equal_parts_from_noisy_to_clean(stated):
    errors = errors_of(merged(stated, (-2.0, 3.0)))
    log_snr, curves = error_curves(errors, 8)
    assert log_snr.tolist() == sorted(log_snr.tolist())
    assert curves.shape == (8, 2)
    assert torch.allclose(curves.mean(0), errors.bits.mean(0))
    noisiest = errors.log_snr.argsort()[: N // 8]
    assert torch.allclose(curves[0], errors.bits[noisiest].mean(0))
    assert curves[0, 0] < curves[0, 1], "the first expert is the better one in the noise"
