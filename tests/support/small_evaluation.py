"""Evaluations for tests of metrics: of a small untrained model, and of made-up images."""

from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import assemble
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.metric import Evaluation, Reconstructions
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe_builtin.samplers.ddim import DdimSampler
from moeframe_builtin.schedules.linear import LinearSchedule


def evaluation_of(registry: Registry, folder: Path, **changes: Any) -> ModelEvaluation:
    """Four experts, two of which are asked, on 8x8 Gaussian images; `changes` are keys of the spec."""
    data = {
        "name": "metrics",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 8, "std": 0.3, "n_train": 40, "n_test": 24},
        "slicer": {"type": "color_variance"},
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "copies": 4, "channels": 4}],
        "gate": {"type": "top_k", "k": 2, "width": 4},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 5},
        **changes,
    }
    assembly = assemble(bind(data, registry), registry, seed=0)
    return ModelEvaluation(assembly, assembly.model, folder)


class GivenImages(Evaluation):
    """Images that a test made up, as reconstructions from any noise level and as samples; there is no model."""

    def __init__(self, originals: torch.Tensor, images: torch.Tensor, levels: int):
        self.image = ImageShape(*originals.shape[1:], levels)
        self.pairs = (originals, images)
        self.test = InMemoryExamples(originals, torch.zeros(len(originals), dtype=torch.long))
        self.schedule = LinearSchedule(LinearSchedule.Config())
        self.sampler = DdimSampler(DdimSampler.Config(), schedule=self.schedule)
        self.streams = Streams(0)
        self.device = torch.device("cpu")
        self.kept: dict[Any, Any] = {}

    def once(self, key, compute):
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def sample_batches(self, n):
        assert n <= len(self.pairs[1])
        yield from self.pairs[1][:n].split(3)

    def reconstructions(self, log_snr, n):
        return Reconstructions(self.pairs[0][:n], self.pairs[1][:n], log_snr)

    def test_batches(self, n):
        raise NotImplementedError

    def pixels(self, levels):
        raise NotImplementedError


def given_images(n: int = 4, shape: tuple[int, int, int] = (3, 16, 20), levels: int = 256) -> GivenImages:
    """Uniformly random originals, and what is left of them after some noise."""
    originals = (Streams(0).uniform((n, *shape), "originals") * levels).long()
    noise = (Streams(0).normal((n, *shape), "noise") * levels / 10).long()
    return GivenImages(originals, (originals + noise).clamp(0, levels - 1), levels)
