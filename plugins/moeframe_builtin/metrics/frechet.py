"""Fréchet distance in a stated feature space. Only Inception features would make it an FID, and these are not."""

import functools
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.shapes import Levels
from moeframe_builtin.features.efficientnet import PACKAGES, efficientnet_lite0, why_missing

_PACKAGES = (*PACKAGES, "torch_fidelity")


class FrechetMetric(Metric):
    """Fréchet distance between samples and held-out images in EfficientNet-Lite0 features (not an FID)."""

    class Config(Metric.Config):
        type: Literal["frechet"] = "frechet"
        features: Literal["efficientnet_lite0"] = "efficientnet_lite0"
        samples: int | None = Field(
            default=None, ge=2, description="samples, and test images; as many as there are test images if not given"
        )
        input_size: int = Field(
            default=64, ge=32, le=512, description="pixels a side that images are resized to for the network"
        )
        batch_size: int = Field(default=128, ge=1)

    config: Config

    def unavailable(self) -> str | None:
        """The packages that hold the network and the distance."""
        return why_missing(_PACKAGES)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Samples against test images, beside the same distance between training and test images."""
        wanted = len(evaluation.test) if self.config.samples is None else self.config.samples
        n = min(wanted, len(evaluation.test))
        floor_n = min(n, len(evaluation.train))
        if n < 2:
            raise UnavailableError(f"{n} test images are too few for a covariance; a Fréchet distance needs at least 2")
        extractor, digest = efficientnet_lite0(self.config.input_size, evaluation.device)
        features = functools.partial(self._features, extractor, evaluation)
        held_out = features(evaluation.test.images(torch.arange(n)))
        sampled = features(torch.cat(list(evaluation.sample_batches(n))))
        # spread over the split, which a folder may hold in order of class
        chosen = evaluation.streams.permutation(len(evaluation.train), "frechet/floor")[:floor_n]
        real = features(evaluation.train.images(chosen))
        return Measurement(
            value=frechet_distance(sampled, held_out),
            unit="Fréchet distance, EfficientNet-Lite0 features",
            better="lower",
            n=n,
            parts={"real_against_real": frechet_distance(real, held_out[:floor_n])},
            how={
                "feature_space": "EfficientNet-Lite0 (ImageNet), global mean of the last 1280 maps",
                "weights_sha256": digest,
                "preprocessing": "grey repeated to RGB; bilinear antialiased resize to "
                f"{self.config.input_size} px; ImageNet mean and sd",
                "samples": n,
                "against": f"the first {n} test images",
                "real_against_real": f"{floor_n} training images against the first {floor_n} test images: "
                "the floor at this N",
                "sampler": f"{evaluation.sampler.name()}, {evaluation.sampler.config.steps} steps",
                "distance": "torch-fidelity, on our features",
                "caution": "not an FID; biased upward at small N, compare only at equal N and with the floor",
            },
        )

    def _features(self, extractor: Callable[[Tensor], Tensor], evaluation: Evaluation, levels: Levels) -> Tensor:
        parts = []
        for start in range(0, len(levels), self.config.batch_size):
            batch = levels[start : start + self.config.batch_size].to(evaluation.device).float()
            parts.append(extractor(batch / (evaluation.image.levels - 1)).cpu().double())
        return torch.cat(parts)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of two (n, features) sets, by torch-fidelity in float64."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(features.double()) for features in (first, second)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])
