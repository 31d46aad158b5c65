"""Batches are fetched by no more processes than the environment allows."""

import torch

from moeframe.data import loading
from moeframe.data.loading import WORKERS_AT_MOST, fetch_batches
from moeframe.interfaces.dataset import InMemoryExamples


def test_no_more_processes_decode_than_the_environment_allows(monkeypatch):
    monkeypatch.setattr(loading, "DataLoader", None)  # none may be made
    monkeypatch.setenv(WORKERS_AT_MOST, "0")
    images = torch.zeros(4, 1, 2, 2, dtype=torch.long)
    found = list(
        fetch_batches(InMemoryExamples(images, torch.zeros(4, dtype=torch.long)), [torch.arange(2)], workers=4)
    )
    assert torch.equal(found[0].indices, torch.arange(2))
