"""What the ODE likelihood is given: networks, gates that jump, ranges and broken denoisers."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from small_flows import PAIR, UniformExpert, drawn_levels, gaussian, line, ode, switching, worst

from moeframe.diffusion import image_from_velocity
from moeframe.errors import NonFiniteError, UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.ode import OdeSolver
from moeframe.model.mixture import MergedDenoiser
from moeframe.testing import GaussianExpert
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.fixed import FixedGate
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.schedules.linear import LinearSchedule


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
