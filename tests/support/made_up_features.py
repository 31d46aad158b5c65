"""Made-up images and feature networks whose figures are known."""

import warnings
from pathlib import Path
from typing import Any

import torch
from small_evaluation import GivenImages

from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.metric import Metric
from moeframe.randomness import Streams
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric

INCEPTION_METRICS = (FidMetric, KidMetric, InceptionScoreMetric)


CPU = torch.device("cpu")


def blobs(n: int, name: str, *, channels: int = 3, size: int = 12, levels: int = 256) -> torch.Tensor:
    """Smooth random images, so that a network has something to tell apart."""
    coarse = Streams(0).uniform((n, channels, 3, 3), name)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (smooth * (levels - 0.001)).long()


class Compared(GivenImages):
    """Samples, test and train images, all made up."""

    def __init__(self, n_samples: int = 40, n_test: int = 40, n_train: int = 60, *, levels: int = 256, **shape: int):
        test, samples, train = (
            blobs(n, name, levels=levels, **shape)
            for n, name in ((n_test, "test"), (n_samples, "samples"), (n_train, "train"))
        )
        super().__init__(test, samples * 3 // 4, levels)
        self.train = InMemoryExamples(train, torch.zeros(n_train, dtype=torch.long))


class Moments(torch.nn.Module):
    """Means and squared means of the four quarters of each channel: 24 features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = torch.nn.functional.adaptive_avg_pool2d(images, [2, 2]).flatten(1)
        return torch.cat([quarters, quarters * quarters], dim=1)


def saved(module: torch.nn.Module, path: Path) -> Path:
    """The module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def in_space(metric: type[Metric], path: Path, **settings: Any) -> Metric:
    return metric(metric.Config(features="torchscript", weights=path, **settings))
