"""MergedDenoiser: merging, dispatch and the ranges of its experts."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.diffusion import (
    add_noise,
    alpha,
    image_from_velocity,
    noise_from_velocity,
    velocity_from_image,
    velocity_from_noise,
)
from moeframe.errors import RangeError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe.testing.rules import stirred
from moeframe_builtin.schedules.ddpm import DdpmSchedule

IMAGE = ImageShape(channels=1, height=4, width=4, levels=256)
GATES = [provided.component for provided in Registry.installed().components("gates")]


class FixedGate(Gate):
    """Given weights for every item."""

    class Config(Gate.Config):
        type: Literal["fixed"] = "fixed"
        weights: tuple[float, ...]

    def forward(self, z, log_snr):
        return torch.tensor(self.config.weights, dtype=z.dtype).expand(len(z), -1)


class AssigningGate(Gate):
    """Item i goes to expert i mod 3 of four."""

    class Config(Gate.Config):
        type: Literal["assigning"] = "assigning"

    def forward(self, z, log_snr):
        return torch.nn.functional.one_hot((z[:, 0, 0, 0] % 3).long(), 4).to(z.dtype)


class CountingExpert(GaussianExpert):
    """Remembers what it was asked."""

    def __init__(self, config, *, image):
        super().__init__(config, image=image)
        self.asked = []

    def forward(self, z, log_snr):
        self.asked.append(z)
        return super().forward(z, log_snr)


class NarrowExpert(Expert):
    """Valid on part of the log-SNRs."""

    class Config(Expert.Config):
        type: Literal["narrow"] = "narrow"
        low: float = -4.0
        high: float = 5.0

    @property
    def log_snr_range(self):
        return (self.config.low, self.config.high)

    def forward(self, z, log_snr):
        return torch.zeros_like(z)


class GaussianOnPart(GaussianExpert):
    """The true denoiser of a Gaussian, valid on part of the log-SNRs."""

    class Config(GaussianExpert.Config):
        pass

    @property
    def log_snr_range(self):
        return (-4.0, 5.0)


def fixed(*weights: float) -> FixedGate:
    return FixedGate(FixedGate.Config(weights=weights), image=IMAGE, n_experts=len(weights))


def expert(mean: float, component=GaussianExpert) -> GaussianExpert:
    return component(component.Config(mean=mean, std=0.3), image=IMAGE)


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, Trajectories]:
    items = Trajectories.numbered(Streams(0), 0, n)
    return items.normal(IMAGE.tensor_shape, "z").double(), torch.linspace(-6, 6, n).double(), items


@pytest.mark.parametrize("component", GATES)
def test_identical_experts_equal_one_expert_whatever_the_gate(component):
    z, log_snr, items = batch()
    given = {"fixed": {"thresholds": (0.5,), "weights": ((0.1, 0.2, 0.3, 0.4), (0, 0, 0.5, 0.5))}}
    config = component.Config(**given.get(component.name(), {}))
    gate = stirred(lambda: component(config, image=IMAGE, n_experts=4)).double().eval()
    merged = MergedDenoiser([expert(0.3) for _ in range(4)], gate)(z, log_snr, items)
    assert torch.allclose(merged.velocity, expert(0.3)(z, log_snr), atol=1e-12)


@settings(deadline=None)
@given(raw=st.lists(st.floats(0, 1), min_size=1, max_size=5), excess=st.floats(-0.5, 0.5))
def test_merging_commutes_with_the_parametrisation_exactly_when_weights_sum_to_one(raw, excess):
    """Merging noises instead of velocities moves the result by (Σw - 1) σ z / α, and by nothing else."""
    total = sum(raw)
    weights = [w / total for w in raw] if total > 1e-3 else [1 / len(raw)] * len(raw)
    weights = [w * (1 + excess) for w in weights]
    z, log_snr, _ = batch()
    denoised = MergedDenoiser([expert(0.2 * k) for k in range(len(weights))], fixed(*weights))(z, log_snr)
    noise = torch.zeros_like(z)
    for part in denoised.contributions:
        noise += weights[part.expert] * noise_from_velocity(part.velocity, z, log_snr)
    difference = velocity_from_noise(noise, z, log_snr) - denoised.velocity
    expected = excess * torch.exp(-log_snr / 2).view(-1, 1, 1, 1) * z
    assert torch.allclose(difference, expected, atol=1e-9)


def test_an_expert_of_weight_zero_is_not_evaluated():
    experts = [expert(0.1 * k, CountingExpert) for k in range(3)]
    z, log_snr, _ = batch()
    denoised = MergedDenoiser(experts, fixed(0.4, 0.0, 0.6))(z, log_snr)
    assert [len(e.asked) for e in experts] == [1, 0, 1]
    assert [part.expert for part in denoised.contributions] == [0, 2]
    assert denoised.network_calls == 2 * len(z)


def test_each_item_visits_its_own_expert_and_no_other():
    experts = [expert(0.1 * k, CountingExpert) for k in range(4)]
    z, log_snr, _ = batch(7)
    z[:, 0, 0, 0] = torch.arange(7)
    denoised = MergedDenoiser(experts, AssigningGate(AssigningGate.Config(), image=IMAGE, n_experts=4))(z, log_snr)
    assert [[int(item[0, 0, 0]) for asked in e.asked for item in asked] for e in experts] == [
        [0, 3, 6],
        [1, 4],
        [2, 5],
        [],
    ]
    assert denoised.network_calls == 7
    for i in range(7):
        alone = experts[i % 3](z[i : i + 1], log_snr[i : i + 1])
        assert torch.allclose(denoised.velocity[i : i + 1], alone)


def test_gradients_reach_the_gate_and_the_experts_that_were_asked():
    from moeframe_builtin.experts.unet import UNetExpert
    from moeframe_builtin.gates.top_k import TopKGate

    experts = [stirred(lambda: UNetExpert(UNetExpert.Config(channels=4), image=IMAGE), seed=k) for k in range(4)]
    gate = stirred(lambda: TopKGate(TopKGate.Config(k=2), image=IMAGE, n_experts=4))
    z, log_snr, _ = (value.float() if isinstance(value, torch.Tensor) else value for value in batch(1))
    denoised = MergedDenoiser(experts, gate)(z, log_snr)
    denoised.velocity.square().sum().backward()
    asked = {part.expert for part in denoised.contributions}
    assert len(asked) == 2
    for k, member in enumerate(experts):
        grads = [p.grad for p in member.parameters() if p.grad is not None and bool((p.grad != 0).any())]
        assert bool(grads) == (k in asked)
    assert any(bool((p.grad != 0).any()) for p in gate.parameters())


def test_one_expert_without_a_gate_is_that_expert():
    z, log_snr, _ = batch()
    denoised = MergedDenoiser([expert(0.3)])(z, log_snr)
    assert torch.equal(denoised.velocity, expert(0.3)(z, log_snr))
    assert denoised.routing.weights.tolist() == [[1.0]] * len(z)


def test_an_expert_alone_shares_its_weights_with_the_mixture():
    experts = [expert(0.1 * k) for k in range(3)]
    mixture = MergedDenoiser(experts, fixed(0.2, 0.3, 0.5))
    assert mixture.alone(1).experts[0] is experts[1]


@settings(deadline=None)
@given(log_snr=st.floats(-10, 10), share=st.floats(0.05, 0.95))
def test_the_posterior_gate_is_bayes_rule(log_snr, share):
    parts = [GaussianExpert.Config(mean=-0.3, std=0.2), GaussianExpert.Config(mean=0.4, std=0.5)]
    model = gaussian_mixture(parts, (share, 1 - share), ImageShape(1, 1, 2, 256))
    where = torch.full((3,), log_snr, dtype=torch.float64)
    z = torch.tensor([[-0.5, 0.1], [0.0, 0.0], [1.0, 0.7]], dtype=torch.float64).view(3, 1, 1, 2)
    a2 = 1 / (1 + math.exp(-log_snr))
    joint = []
    for weight, part in zip((share, 1 - share), parts, strict=True):
        variance = a2 * part.std**2 + 1 - a2
        density = torch.exp(-((z - a2**0.5 * part.mean) ** 2) / (2 * variance)) / (2 * math.pi * variance) ** 0.5
        joint.append(weight * density.prod(-1).flatten())
    expected = torch.stack(joint, 1) / sum(joint)[:, None]
    assert torch.allclose(model.route(z, where).weights, expected, rtol=1e-9)


def test_the_gaussian_expert_is_the_least_squares_predictor():
    """No linear change of its prediction lowers the error: the residual is uncorrelated with z."""
    generator = torch.Generator().manual_seed(0)
    x = 0.2 + 0.3 * torch.randn((20000, 1, 1, 1), generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for value in (-3.0, 0.0, 3.0):
        log_snr = torch.full((20000,), value, dtype=torch.float64)
        z = add_noise(x, noise, log_snr)
        a, s = math.sqrt(1 / (1 + math.exp(-value))), math.sqrt(1 / (1 + math.exp(value)))
        residual = (a * noise - s * x - expert(0.2)(z, log_snr)).flatten()
        for regressor in (torch.ones_like(residual), z.flatten()):
            product = residual * regressor
            assert abs(float(product.mean())) < 4 * float(product.std()) / 20000**0.5


# ranges


@pytest.mark.parametrize("value", [-4.5, 5.5])
def test_an_expert_asked_outside_its_range_raises(value):
    z, _, _ = batch(2)
    log_snr = torch.tensor([0.0, value]).double()
    narrow = NarrowExpert(NarrowExpert.Config(), image=IMAGE)
    model = MergedDenoiser([expert(0.0), narrow], fixed(0.5, 0.5))
    with pytest.raises(RangeError) as error:
        model(z, log_snr)
    assert str(error.value) == (
        f"expert 1 (narrow) is valid for log-SNR -4 .. 5 but was evaluated at {value}; "
        "narrow the schedule's log_snr_min / log_snr_max, or set the expert's 'outside' to clamp or exclude"
    )


def narrow(**settings) -> GaussianOnPart:
    return GaussianOnPart(GaussianOnPart.Config(mean=0.2, std=0.3, **settings), image=IMAGE)


def test_an_excluded_expert_gives_its_weight_to_the_others_outside_its_range_only():
    z, log_snr, _ = batch()  # log-SNRs -6 .. 6
    model = MergedDenoiser([expert(0.0), expert(0.1), narrow(outside="exclude")], fixed(0.3, 0.1, 0.6))
    found = model(z, log_snr)
    inside = (log_snr >= -4) & (log_snr <= 5)
    assert inside.any()
    assert not inside.all()
    expected = torch.where(inside[:, None], torch.tensor([0.3, 0.1, 0.6]), torch.tensor([0.75, 0.25, 0.0]))
    torch.testing.assert_close(found.routing.weights.double(), expected.double())
    assert torch.equal(found.contributions[2].items, torch.nonzero(inside).flatten())


def test_where_every_chosen_expert_is_excluded_the_log_snr_is_named():
    z, _, _ = batch(2)
    model = MergedDenoiser([expert(0.0), narrow(outside="exclude")], fixed(0.0, 1.0))
    with pytest.raises(RangeError, match=r"at log-SNR 5.5 every expert that the gate chose is outside its range"):
        model(z, torch.tensor([0.0, 5.5]).double())


def test_a_clamped_expert_predicts_the_image_of_its_nearest_end():
    z, log_snr, _ = batch()
    clamped = narrow(outside="clamp")
    found = MergedDenoiser([clamped])(z, log_snr).velocity
    whole = expert(0.2)
    for i, level in enumerate(log_snr.tolist()):
        nearest = torch.tensor([min(max(level, -4.0), 5.0)]).double()
        rescaled = z[i : i + 1] * alpha(nearest) / alpha(log_snr[i : i + 1])
        image = image_from_velocity(whole(rescaled, nearest), rescaled, nearest)
        expected = velocity_from_image(image, z[i : i + 1], log_snr[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-9, atol=1e-9)


def test_an_expert_is_not_asked_about_its_range_where_the_gate_leaves_it_out():
    z, _, _ = batch(2)
    model = MergedDenoiser([expert(0.0), NarrowExpert(NarrowExpert.Config(), image=IMAGE)], fixed(1.0, 0.0))
    assert model(z, torch.tensor([-9.0, 9.0]).double()).network_calls == 2


def test_the_ends_of_a_schedule_in_float32_lie_in_the_same_range_in_float64():
    schedule = DdpmSchedule(DdpmSchedule.Config())
    config = NarrowExpert.Config(low=schedule.log_snr_min, high=schedule.log_snr_max)
    z, ends = batch(2)[0].float(), schedule.log_snr(torch.tensor([0.0, 1.0]))
    nudged = torch.nextafter(ends, 2 * ends)
    assert MergedDenoiser([NarrowExpert(config, image=IMAGE)])(z, nudged).network_calls == 2
