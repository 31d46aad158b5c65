"""The built-in noise schedules: extreme settings, and the values that their sources state."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moeframe.testing import check_schedule
from moeframe_builtin.schedules.cosine import CosineSchedule
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.edm import EdmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule


@pytest.mark.parametrize(
    ("component", "values"),
    [
        (LinearSchedule, {"log_snr_min": -30, "log_snr_max": 30}),
        (CosineSchedule, {"log_snr_min": -30, "log_snr_max": 30}),
        (CosineSchedule, {"log_snr_min": -30, "shift": 6.0}),
        (CosineSchedule, {"log_snr_max": 30, "shift": -6.0}),
        (DdpmSchedule, {"train_steps": 2}),
        (DdpmSchedule, {"train_steps": 4000}),
        (DdpmSchedule, {"beta_start": 0.01, "beta_end": 0.01}),
        (DdpmSchedule, {"beta_end": 0.9}),
        (EdmSchedule, {"rho": 1.0, "sigma_min": 1e-5}),
        (EdmSchedule, {"rho": 100.0}),
    ],
)
def test_extreme_settings_keep_the_contract(component, values):
    check_schedule(component, component.Config(**values))


@settings(deadline=None, max_examples=40)
@given(
    low=st.floats(-30, 0),
    span=st.floats(1, 30),
    shift=st.floats(-6, 6),
    times=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_cosine_and_linear_decrease_from_the_stated_highest_to_the_lowest(low, span, shift, times):
    high = min(low + span, 30.0)
    ends = {"log_snr_min": low, "log_snr_max": high}
    for schedule in (
        LinearSchedule(LinearSchedule.Config(**ends)),
        CosineSchedule(CosineSchedule.Config(**ends, shift=shift)),
    ):
        assert schedule.log_snr_min == pytest.approx(low, abs=1e-6)
        assert schedule.log_snr_max == pytest.approx(high, abs=1e-6)
        early, late = sorted(times)
        first, second = schedule.log_snr(torch.tensor([early, late], dtype=torch.float64)).tolist()
        assert first > second or late - early < 1e-9


def test_cosine_without_limits_is_the_cosine_of_nichol_and_dhariwal():
    """ᾱ = cos²(π t / 2), so at t = 1/2 of the whole range the log-SNR is zero, and at 1/4 it is 2 log(1 + √2)."""
    schedule = CosineSchedule(CosineSchedule.Config(log_snr_min=-30, log_snr_max=30))
    half, quarter = schedule.log_snr(torch.tensor([0.5, 0.25], dtype=torch.float64)).tolist()
    assert half == pytest.approx(0, abs=1e-5)
    assert quarter == pytest.approx(2 * math.log(1 + math.sqrt(2)), abs=1e-5)


def test_the_shift_moves_the_middle_of_the_cosine():
    schedule = CosineSchedule(CosineSchedule.Config(log_snr_min=-30, log_snr_max=30, shift=2 * math.log(64 / 256)))
    assert float(schedule.log_snr(torch.tensor([0.5]).double())) == pytest.approx(-4 * math.log(2), abs=1e-4)


def test_ddpm_passes_through_its_discrete_steps():
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    found = DdpmSchedule(DdpmSchedule.Config()).log_snr(torch.arange(1000, dtype=torch.float64) / 999)
    assert torch.allclose(found, (alpha_bar / (1 - alpha_bar)).log(), atol=1e-9)


def test_the_rate_of_ddpm_is_positive_at_both_ends():
    schedule = DdpmSchedule(DdpmSchedule.Config())
    ends = schedule.rate(torch.tensor([0.0, 1.0]))
    assert torch.allclose(ends, schedule.rate(torch.tensor([1e-5, 1 - 1e-5])))
    assert bool((ends > 0).all())


def test_edm_gives_the_noise_levels_of_its_table():
    """Karras et al. 2022, eq. 5, in 18 steps: σ from 80 to 0.002."""
    times = 1 - torch.arange(18, dtype=torch.float64) / 17
    sigma = torch.exp(-EdmSchedule(EdmSchedule.Config()).log_snr(times) / 2)
    i = torch.arange(18, dtype=torch.float64)
    published = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(sigma, published, rtol=1e-9)


@pytest.mark.parametrize("component", [LinearSchedule, CosineSchedule, DdpmSchedule, EdmSchedule])
def test_time_of_a_log_snr_beyond_the_range_is_an_end(component):
    schedule = component(component.Config())
    assert schedule.time_of(torch.tensor([60.0, -60.0]).double()).tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(
    ("component", "values", "message"),
    [
        (LinearSchedule, {"log_snr_min": 5, "log_snr_max": 5}, "log_snr_min 5 must be below log_snr_max 5"),
        (CosineSchedule, {"log_snr_min": 11}, "log_snr_min 11 must be below log_snr_max 10"),
        (EdmSchedule, {"sigma_min": 100}, "sigma_min 100 must be below sigma_max 80"),
        (DdpmSchedule, {"beta_start": 0.5}, "beta_start 0.5 must not exceed beta_end 0.02"),
    ],
)
def test_reversed_ends_are_refused(component, values, message):
    with pytest.raises(ValidationError, match=message):
        component.Config(**values)
