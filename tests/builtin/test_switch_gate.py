"""Gates that look at the noise level alone: the switch and the fixed weights."""

import math

import pytest
import torch
from pydantic import ValidationError

from moeframe.errors import InputError, SpecError
from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import ExpertErrors
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.sampling import ddim_trajectory
from moeframe.randomness import Streams, Trajectories
from moeframe.spec.loader import load_spec
from moeframe.testing import GaussianExpert
from moeframe_builtin.gates.fixed import FixedGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.switch import SwitchGate

IMAGE = ImageShape(channels=1, height=4, width=4, levels=8)
STREAMS = Streams(0)


def switch(eta, n_experts=2) -> SwitchGate:
    return SwitchGate(SwitchGate.Config(eta=eta), image=IMAGE, n_experts=n_experts)


def fixed(weights, thresholds=()) -> FixedGate:
    return FixedGate(FixedGate.Config(weights=weights, thresholds=thresholds), image=IMAGE, n_experts=len(weights[0]))


def weights_at(gate, *log_snr):
    return gate(torch.zeros(len(log_snr), *IMAGE.tensor_shape), torch.tensor(log_snr))


class CountingExpert(GaussianExpert):
    """Counts the images that it is asked about."""

    asked = 0

    def forward(self, z, log_snr):
        self.asked += len(z)
        return super().forward(z, log_snr)


def counting(n):
    return [CountingExpert(CountingExpert.Config(std=0.2 + 0.1 * k), image=IMAGE) for k in range(n)]


# --- switch -----------------------------------------------------------------------------------------------------------


def test_below_eta_the_first_expert_answers_and_from_eta_on_the_second():
    assert weights_at(switch(1.5), -8.0, 1.49, 1.5, 8.0).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_k_experts_in_order_share_the_range_by_k_minus_1_thresholds():
    chosen = weights_at(switch([-2, 0.5, 3], 4), -9.0, -2.0, 0.4, 0.5, 2.9, 3.0).argmax(1)
    assert chosen.tolist() == [0, 1, 1, 2, 2, 3]


def test_a_switch_asks_one_expert_per_step():
    experts = counting(2)
    grid = torch.linspace(-6, 6, 10).tolist()
    model = MergedDenoiser(experts, switch(0.0))
    items = Trajectories.numbered(STREAMS, 0, 3)
    states = list(ddim_trajectory(model, STREAMS.normal((3, *IMAGE.tensor_shape), "z"), items, grid, clip=True))
    calls = sum(expert.asked for expert in experts)
    assert calls == states[-1].network_calls
    assert calls == 3 * sum(1 for _ in states[1:])
    assert experts[0].asked == 3 * 5, "five of ten levels lie in the noise"
    assert experts[1].asked == calls - 15


def test_a_batch_of_several_noise_levels_asks_one_expert_per_image():
    experts = counting(3)
    MergedDenoiser(experts, switch([-1.5, 1.5], 3))(torch.zeros(6, *IMAGE.tensor_shape), torch.linspace(-5, 5, 6))
    assert [expert.asked for expert in experts] == [2, 2, 2]


def test_the_ode_is_told_where_the_weights_jump_and_that_they_are_continuous_in_z():
    assert switch([-1, 2.5], 3).switches == (-1.0, 2.5)
    assert fixed([[1, 0], [0, 1]], [0.5]).switches == (0.5,)
    assert switch(0.0).continuous
    assert fixed([[1, 0]]).switches == ()


def test_gates_without_parameters_say_so():
    for gate in (switch(0.0), fixed([[0.5, 0.5]])):
        assert not gate.LEARNS
        assert list(gate.parameters()) == []


def test_until_it_is_calibrated_auto_is_uniform_and_then_its_state_holds_eta():
    gate = switch("auto")
    assert gate.needs_calibration
    assert weights_at(gate, -5.0, 5.0).tolist() == [[0.5, 0.5]] * 2
    log_snr = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    gate.calibrate(ExpertErrors(log_snr, torch.tensor([[1, 2], [1, 2], [2, 1], [2, 1]]).double()))
    assert not gate.needs_calibration
    assert gate.switches == (0.0,)
    again = switch("auto")
    again.load_state_dict(gate.state_dict())
    assert again.switches == (0.0,)
    assert torch.equal(weights_at(again, -0.1, 0.0), torch.eye(2))


def test_an_expert_that_is_never_used_has_no_switch():
    gate = switch([-1, 1], 3)
    gate.switch_at((-math.inf, math.inf))
    assert gate.switches == ()
    assert weights_at(gate, -9.0, 9.0).argmax(1).tolist() == [1, 1]


def test_a_gate_that_does_not_switch_cannot_be_moved():
    softmax = SoftmaxGate(SoftmaxGate.Config(), image=IMAGE, n_experts=2)
    with pytest.raises(InputError, match="gate 'softmax' does not switch between experts by log-SNR alone; use a gate"):
        softmax.switch_at((0.0,))


# --- fixed ------------------------------------------------------------------------------------------------------------


def test_fixed_weights_are_those_of_the_band():
    gate = fixed([[0.5, 0.5], [0.2, 0.8], [0, 1]], [-2, 3])
    expected = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.2, 0.8], [0.0, 1.0], [0.0, 1.0]])
    assert torch.allclose(weights_at(gate, -2.1, -2.0, 2.9, 3.0, 9.0), expected)


def test_weights_given_to_five_decimals_are_made_to_sum_to_one():
    gate = fixed([[0.33333, 0.33333, 0.33334], [0.333333] * 3], [0.0])
    assert torch.allclose(gate.weights.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_an_expert_of_weight_zero_is_not_asked():
    experts = counting(2)
    MergedDenoiser(experts, fixed([[0, 1], [0.5, 0.5]], [0]))(
        torch.zeros(2, *IMAGE.tensor_shape), torch.tensor([-1, 1.0])
    )
    assert [expert.asked for expert in experts] == [1, 2]


@pytest.mark.parametrize("gate", [switch(0.3), switch("auto"), fixed([[0.3, 0.7], [0.9, 0.1]], [0.3])])
def test_two_equal_experts_merge_to_exactly_themselves(gate):
    expert = GaussianExpert(GaussianExpert.Config(std=0.4, mean=0.1), image=IMAGE)
    z, log_snr = STREAMS.normal((9, *IMAGE.tensor_shape), "z"), torch.linspace(-6, 6, 9)
    assert torch.allclose(MergedDenoiser([expert, expert], gate)(z, log_snr).velocity, expert(z, log_snr), atol=1e-5)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eta", "message"),
    [
        ([2, 1], "thresholds must increase, from noisy to clean, not [2.0, 1.0]"),
        ([1, 1], "thresholds must increase, from noisy to clean, not [1.0, 1.0]"),
        (math.nan, "thresholds must increase, from noisy to clean, not [nan]"),
        ("soon", "must be a log-SNR, a list of them, or auto, not 'soon'"),
        (True, "must be a log-SNR, a list of them, or auto, not True"),
        ([[1]], "must be a log-SNR, a list of them, or auto, not [[1]]"),
        ({}, "must be a log-SNR, a list of them, or auto, not {}"),
    ],
    ids=str,
)
def test_what_is_no_eta_is_refused(eta, message):
    with pytest.raises(ValidationError) as caught:
        SwitchGate.Config(eta=eta)
    assert message in str(caught.value)


def test_a_number_that_yaml_reads_as_a_text_is_a_log_snr():
    assert SwitchGate.Config(eta="1e1").thresholds == (10.0,)


FACTS = SpecFacts(n_experts=2, log_snr_range=(-6.0, 6.0))


@pytest.mark.parametrize("eta", [-6, 6, 12])
def test_an_eta_that_the_schedule_never_crosses_is_refused(eta):
    assert list(SwitchGate.Config(eta=eta).conflicts(FACTS)) == [
        (
            "eta",
            f"{eta} is outside the schedule's log-SNR range -6 .. 6, so it divides nothing; choose a value within, "
            "or widen the schedule",
        )
    ]


def test_a_wrong_number_of_thresholds_is_refused():
    assert list(SwitchGate.Config(eta=[-1, 2]).conflicts(FACTS)) == [
        ("eta", "2 threshold(s) for 2 experts, between which there are 1; give 1, from noisy to clean")
    ]


def test_auto_is_refused_where_the_experts_are_still_to_be_trained(tiny_spec, registry):
    with pytest.raises(SpecError) as caught:
        load_spec(tiny_spec, registry, ["gate={type: switch}"])
    assert str(caught.value) == (
        "--set gate={type: switch}: gate.eta: auto compares finished experts, but training.steps is 4; give numbers, "
        "or set training.steps: 0 and merge experts of finished runs"
    )
    assert load_spec(tiny_spec, registry, ["gate={type: switch}", "training.steps=0"]).gate.eta == "auto"
    assert load_spec(tiny_spec, registry, ["gate={type: switch, eta: 0.5}"]).gate.eta == 0.5


def test_a_spec_says_at_which_path_a_threshold_is_outside(tiny_spec, registry):
    with pytest.raises(SpecError, match=r"gate.thresholds: 7 is outside the schedule's log-SNR range -6 .. 6"):
        load_spec(tiny_spec, registry, ["gate={type: fixed, thresholds: [7], weights: [[1, 0], [0, 1]]}"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [[0.5, 0.4]]}, "the weights of band 0 sum to 0.9, not to 1: [0.5, 0.4]"),
        ({"weights": [[1.5, -0.5]]}, "band 0 has a negative weight: [1.5, -0.5]; weights are zero or more"),
        (
            {"weights": [[1, 0]], "thresholds": [0]},
            "1 bands for 1 threshold(s); give 2 lists of weights, one more than thresholds",
        ),
        ({"weights": [[1]] * 3, "thresholds": [3, 1]}, "thresholds must increase, from noisy to clean, not [3.0, 1.0]"),
    ],
    ids=str,
)
def test_weights_that_are_no_merge_are_refused(settings, message):
    with pytest.raises(ValidationError) as caught:
        FixedGate.Config(**settings)
    assert message in str(caught.value)


def test_weights_for_another_number_of_experts_are_refused():
    assert list(FixedGate.Config(weights=[[1, 0, 0]]).conflicts(FACTS)) == [
        ("weights", "band 0 has 3 weights for 2 experts; give one weight per expert")
    ]
