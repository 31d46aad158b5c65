"""The built-in gates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import Gate
from moeframe.randomness import Streams, Trajectories
from moeframe.testing.rules import stirred
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.gates.uniform import UniformGate

IMAGE = ImageShape(channels=1, height=8, width=8, levels=256)
STREAMS = Streams(0)


def gate(component: type[Gate], n_experts: int = 4, seed: int = 0, **settings) -> Gate:
    config = component.Config(**settings)
    return stirred(lambda: component(config, image=IMAGE, n_experts=n_experts), seed).eval()


def noisy(n: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return Streams(seed).normal((n, *IMAGE.tensor_shape), "z"), torch.linspace(-8, 8, n)


# top_k


@settings(deadline=None, max_examples=30)
@given(n_experts=st.integers(1, 8), data=st.data(), seed=st.integers(0, 50))
def test_top_k_gives_exactly_k_renormalised_weights_of_the_most_probable(n_experts, data, seed):
    k = data.draw(st.integers(1, n_experts))
    routing = gate(TopKGate, n_experts, seed, k=k).route(*noisy(seed=seed))
    assert bool(((routing.weights > 0).sum(1) == k).all())
    assert torch.allclose(routing.weights.sum(1), torch.ones(16), atol=1e-6)
    chosen, left_out = routing.weights > 0, routing.weights == 0
    least = routing.probabilities.masked_fill(left_out, 2.0).min(1).values
    assert bool((least[:, None] >= routing.probabilities.masked_fill(chosen, -1.0)).all())
    kept = routing.probabilities * chosen
    assert torch.allclose(routing.weights, kept / kept.sum(1, keepdim=True))


@pytest.mark.parametrize("renormalize", [True, False])
def test_top_k_with_all_experts_equals_softmax(renormalize):
    softmax, top_k = gate(SoftmaxGate), gate(TopKGate, seed=1, k=4, renormalize=renormalize)
    top_k.load_state_dict(softmax.state_dict())
    assert torch.allclose(top_k(*noisy()), softmax(*noisy()), atol=1e-6)


def test_without_renormalising_the_kept_weights_are_the_probabilities():
    ablation = gate(TopKGate, renormalize=False)
    routing = ablation.route(*noisy())
    kept = routing.weights > 0
    assert torch.equal(routing.weights[kept], routing.probabilities[kept])
    assert not ablation.sums_to_one
    assert bool((routing.weights.sum(1) < 1).all())


def test_of_equal_probabilities_the_lower_numbered_experts_are_kept():
    untrained = TopKGate(TopKGate.Config(k=2), image=IMAGE, n_experts=4).eval()
    for n in (1, 16):
        assert torch.equal(untrained(*noisy(n)), torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(n, -1))


def test_more_experts_kept_than_there_are_is_a_conflict():
    assert list(TopKGate.Config(k=5).conflicts(SpecFacts(n_experts=4))) == [
        ("k", "k = 5 exceeds the number of experts, 4; lower k or add experts")
    ]
    assert list(TopKGate.Config(k=4).conflicts(SpecFacts(n_experts=4))) == []


def test_top_k_routes_alike_in_training_and_sampling_without_dropout():
    top_k = gate(TopKGate, dropout=0.0)
    sampling = top_k(*noisy())
    assert torch.equal(top_k.train()(*noisy()), sampling)


# learned gates


@pytest.mark.parametrize("component", [SoftmaxGate, TopKGate])
def test_an_untrained_gate_is_uniform(component):
    fresh = component(component.Config(), image=IMAGE, n_experts=4).eval()
    assert torch.equal(fresh.route(*noisy()).probabilities, torch.full((16, 4), 0.25))


@pytest.mark.parametrize("component", [SoftmaxGate, TopKGate])
def test_a_learned_gate_sees_both_the_image_and_the_noise_level(component):
    learned, (z, log_snr) = gate(component, seed=1), noisy()
    probabilities = learned.route(z, log_snr).probabilities
    assert not torch.allclose(learned.route(z.flip(0), log_snr).probabilities, probabilities, atol=1e-3)
    assert not torch.allclose(learned.route(z, log_snr.flip(0)).probabilities, probabilities, atol=1e-3)


def test_gate_dropout_acts_in_training_only():
    softmax = gate(SoftmaxGate, dropout=0.5)
    assert torch.equal(softmax(*noisy()), softmax(*noisy()))
    softmax.train()
    with STREAMS.governing_torch("dropout", 0):
        first = softmax(*noisy())
    with STREAMS.governing_torch("dropout", 1):
        assert not torch.equal(softmax(*noisy()), first)


# uniform and random


def test_uniform_gives_every_expert_the_same_weight():
    assert torch.equal(gate(UniformGate, 5)(*noisy(3)), torch.full((3, 5), 0.2))


def chosen(redraw: str, log_snr: float, n: int = 400, seed: int = 0) -> torch.Tensor:
    items, z = Trajectories.numbered(Streams(seed), 0, n), torch.zeros(n, *IMAGE.tensor_shape)
    weights = gate(RandomGate, redraw=redraw).route(z, torch.full((n,), log_snr), items).weights
    assert torch.equal(weights.sum(1), torch.ones(n))
    assert bool(((weights == 0) | (weights == 1)).all())
    return weights.argmax(1)


def test_per_sample_keeps_its_expert_along_the_trajectory():
    path = torch.stack([chosen("per_sample", log_snr) for log_snr in (-8.0, -1.0, 0.0, 3.0, 8.0)])
    assert bool((path == path[0]).all())


def test_per_step_draws_anew_at_each_noise_level():
    path = torch.stack([chosen("per_step", log_snr) for log_snr in (-8.0, -1.0, 0.0, 3.0, 8.0)])
    agreement = (path[1:] == path[:-1]).double().mean(1)
    assert bool(((agreement - 0.25).abs() < 0.1).all())


@pytest.mark.parametrize("redraw", ["per_sample", "per_step"])
def test_random_experts_are_uniform_and_change_with_the_seed(redraw):
    counts = chosen(redraw, 1.0, n=4000).bincount(minlength=4).double()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 16.3  # chi-square with 3 degrees of freedom, p = 0.001
    assert float((chosen(redraw, 1.0) == chosen(redraw, 1.0, seed=1)).float().mean()) < 0.4


def test_a_random_gate_without_trajectories_is_refused():
    with pytest.raises(ValueError, match="a random gate needs trajectories: pass them as the third argument"):
        gate(RandomGate).route(*noisy())
