"""Random draws are functions of their address, and of nothing else."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.randomness import Streams, Trajectories, batch_indices, derive_key

addresses = st.lists(st.one_of(st.integers(-10, 10), st.text(alphabet="a1\x1f:", max_size=3)), max_size=3)


@given(first=addresses, second=addresses)
def test_different_addresses_have_different_keys(first, second):
    assert (derive_key(0, "p", *first) == derive_key(0, "p", *second)) == (repr(first) == repr(second))


def test_a_number_and_its_text_are_different_addresses():
    assert derive_key(0, "noise", 1) != derive_key(0, "noise", "1")


def test_keys_differ_by_seed_and_by_purpose():
    assert len({derive_key(seed, purpose, 3) for seed, purpose in itertools.product(range(5), ("a", "b", "c"))}) == 15


def test_a_draw_does_not_depend_on_earlier_draws():
    first = Streams(3)
    first.normal((7,), "other", 1)
    torch.rand(5)
    assert torch.equal(first.normal((4,), "noise", 2), Streams(3).normal((4,), "noise", 2))


def test_normal_draws_are_standard_normal():
    draws = Streams(0).normal((200_000,), "noise")
    assert abs(float(draws.mean())) < 4 / 200_000**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / 200_000) ** 0.5


@settings(deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 1000))
def test_low_discrepancy_puts_one_point_in_each_interval(n, seed):
    points = Streams(seed).low_discrepancy(n, "times")
    assert points.dtype == torch.float32
    assert points.min() >= 0
    assert points.max() < 1
    gaps = points.double().sort().values.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, 1 / n), atol=1e-6)


def test_low_discrepancy_is_uniform_over_offsets():
    first = torch.tensor([float(Streams(0).low_discrepancy(1, "times", step)) for step in range(2000)])
    assert abs(float(first.mean()) - 0.5) < 4 * (1 / 12 / 2000) ** 0.5


def test_low_discrepancy_stays_below_one_after_rounding_to_float32(monkeypatch):
    almost = torch.tensor(1 - 1e-12, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: almost)
    assert Streams(0).low_discrepancy(4, "times").max() < 1


def test_governing_torch_seeds_the_block_and_leaves_the_outside_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with Streams(0).governing_torch("weights", 1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with Streams(0).governing_torch("weights", 1):
        assert torch.equal(torch.rand(3), first)
    with Streams(0).governing_torch("weights", 2):
        assert not torch.equal(torch.rand(3), first)


# batches


@settings(deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 60), seed=st.integers(0, 100))
def test_each_epoch_of_batches_holds_every_index_exactly_once(n, batch_size, seed):
    epochs = 3
    steps = -(-epochs * n // batch_size)
    drawn = torch.cat([batch_indices(Streams(seed), n, batch_size, step, "order") for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(drawn[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_epochs_are_ordered_anew_and_a_batch_is_a_function_of_its_step():
    batches = [batch_indices(Streams(0), 50, 50, step, "order") for step in range(2)]
    assert not torch.equal(*batches)
    assert torch.equal(batch_indices(Streams(0), 50, 50, 1, "order"), batches[1])


# trajectories


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_the_draws_of_an_item_do_not_depend_on_its_batch(ids):
    items, everyone = Trajectories(Streams(1), torch.tensor(ids)), Trajectories.numbered(Streams(1), 0, 31)
    log_snr = torch.linspace(-3, 3, 31)
    assert torch.equal(items.normal((2, 2), "noise", 4), everyone.normal((2, 2), "noise", 4)[ids])
    assert torch.equal(items.choice(5, "gate"), everyone.choice(5, "gate")[ids])
    assert torch.equal(items.choice(5, "gate", log_snr[ids]), everyone.choice(5, "gate", log_snr)[ids])


def test_every_item_has_draws_of_its_own():
    draws = Trajectories.numbered(Streams(0), 0, 50).normal((2, 2), "noise").flatten(1)
    assert len({tuple(draw) for draw in draws.tolist()}) == 50
    assert abs(float(draws.mean())) < 4 / draws.numel() ** 0.5


@pytest.mark.parametrize("n", [2, 3, 7])
def test_choices_are_uniform(n):
    counts = Trajectories.numbered(Streams(0), 0, 7000).choice(n, "gate").bincount(minlength=n).double()
    expected = 7000 / n
    assert float(((counts - expected) ** 2 / expected).sum()) < n - 1 + 5 * (2 * (n - 1)) ** 0.5


def test_a_choice_per_value_changes_with_the_value():
    items = Trajectories.numbered(Streams(0), 0, 400)
    first, second = (items.choice(4, "gate", torch.full((400,), value)) for value in (0.5, 0.5000001))
    assert 0.15 < float((first == second).float().mean()) < 0.35
