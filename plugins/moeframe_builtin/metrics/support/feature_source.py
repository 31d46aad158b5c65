"""The images that a metric compares in a feature space: samples, a reference, and real images for the floor."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Split
from moeframe.interfaces.metric import Evaluation, Metric
from moeframe.shapes import Levels
from moeframe_builtin.features.catalogue import SPACES, SpaceName
from moeframe_builtin.features.space import Extracted, FeatureSpace, SpaceSettings, to_rgb

MANY = 10_000
"""Below this many images a distance is chiefly comparable with others of the same N (Heusel et al. 2017)."""


class FeatureConfig(Metric.Config):
    """Which images are compared, and in which space."""

    features: SpaceName
    weights: Path | None = Field(default=None, description="file of the feature network, where it is the user's own")
    verify: bool = Field(default=True, description="inception: refuse weights other than the published file")
    input_size: int = Field(
        default=64, ge=32, le=512, description="efficientnet_lite0: pixels a side that images are resized to"
    )
    module: str | None = Field(
        default=None,
        description="features: module: PACKAGE.MODULE:FUNCTION, which returns a torch module from RGB in [0, 1], "
        "(n, 3, height, width), to (n, features)",
    )
    samples: int | None = Field(
        default=None, ge=2, description="samples; as many as there are reference images if not given"
    )
    reference_images: int | Literal["all"] | None = Field(
        default=None, description="reference images, from 2; as many as samples if not given"
    )
    reference: Split = Field(
        default="test",
        description="the split that samples are compared with; most published FIDs take train, all of it",
    )
    batch_size: int = Field(default=64, ge=1, description="images in the feature network at once")

    @property
    def settings(self) -> SpaceSettings:
        """Settings of the feature space."""
        weights = None if self.weights is None else self.weights.expanduser()
        return SpaceSettings(weights, self.verify, self.input_size, self.module)

    def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Report settings that the chosen space does not use, or lacks."""
        if isinstance(self.reference_images, int) and self.reference_images < 2:
            yield "reference_images", f"must be 2 or more, or all, not {self.reference_images}"
        yield from SPACES[self.features].misused(self.settings)


def why_no_space(config: FeatureConfig) -> str | None:
    """Why the config's feature space is not available and what to do, or None; nothing is loaded."""
    return SPACES[config.features].unavailable(config.settings)


class FeatureSource:
    """Features of one metric's images; extracted once for all metrics of an evaluation with equal settings.

    Of a split that has more images than needed those are taken that the seed draws: folders are often in order of
    class. At most a batch of images is in memory at a time. Raises UnavailableError where there are fewer real images
    than requested, and where features are not finite. A metric of samples alone is not `compared`: its value
    for as many real images as there are is shown beside it.
    """

    def __init__(self, config: FeatureConfig, evaluation: Evaluation, *, compared: bool = True):
        self._config = config
        self._evaluation = evaluation
        other: Split = "train" if config.reference == "test" else "test"
        self._other = other
        available = len(self._examples(config.reference))
        self.n = available if config.samples is None else config.samples
        requested = self.n if config.reference_images is None else config.reference_images
        self.reference_n = available if requested == "all" else requested if compared else min(requested, available)
        if self.reference_n > available:
            setting = "samples" if config.reference_images is None else "reference_images"
            raise UnavailableError(
                f"fewer real images than requested: {available} {config.reference} images for {setting}: "
                f"{self.reference_n}; set {setting}: {available} or fewer, reference_images: all, or reference: "
                f"{other} ({len(self._examples(other))} images)"
            )
        self.floor_n = min(self.n, self.reference_n, len(self._examples(other)))
        """Real images on each side of the floor."""
        if self.floor_n < 2:
            raise UnavailableError(
                f"{available} {config.reference} and {len(self._examples(other))} {other} images are too few to "
                "compare; each split needs at least 2"
            )

    @property
    def fewest(self) -> int:
        """Size of the smaller side, whose bias equals that of as few samples."""
        return min(self.n, self.reference_n)

    @property
    def sizes(self) -> str:
        """N, and the number of real images if it differs."""
        return f"N = {self.n}" + ("" if self.n == self.reference_n else f" against {self.reference_n} real images")

    @property
    def floor_is_of_fewer(self) -> bool:
        """Whether there are too few real images for a floor of the samples' size."""
        return self.floor_n < max(self.n, self.reference_n)

    @property
    def sampled(self) -> Extracted:
        """The first n samples of the model."""
        return self._once("samples", self.n, lambda: self._evaluation.sample_batches(self.n))

    @property
    def reference(self) -> Extracted:
        """`reference_n` images of the reference split, in an order drawn by the seed."""
        return self._real(self._config.reference, self.reference_n)

    @property
    def floor(self) -> Extracted:
        """`floor_n` images of the other split, real as those of the reference."""
        return self._real(self._other, self.floor_n)

    @cached_property
    def space(self) -> FeatureSpace:
        """The feature space, its network loaded once."""
        make = SPACES[self._config.features]
        settings, device = self._config.settings, self._evaluation.device
        return self._evaluation.once(("feature space", make.KEY, settings), lambda: make(settings, device))

    @property
    def dims(self) -> int:
        """Features of an image, known from one."""
        key = ("dims", self._config.features, self._config.settings)
        return self._evaluation.once(key, self._dims_of_one)

    def _dims_of_one(self) -> int:
        (image,) = self._drawn(self._config.reference, 1)
        return int(self.space.extract(to_rgb(image, self._evaluation.image.levels)).features.shape[1])

    def how(self) -> Mapping[str, Any]:
        """What every metric in a feature space documents."""
        sampler = self._evaluation.sampler
        reference = self._config.reference
        return {
            "feature_space": self.space.what,
            "weights_sha256": self.space.weights_sha256,
            "preprocessing": self.space.preprocessing,
            "samples": self.n,
            "against": self._chosen(reference, self.reference_n),
            "real_against_real": f"{self._chosen(self._other, self.floor_n)} against {self.floor_n} of the {reference} "
            "images: what real images score",
            **(
                {"at_floor_n": f"the same metric for {self.floor_n} samples, to compare with real_against_real"}
                if self.floor_is_of_fewer
                else {}
            ),
            "sampler": f"{sampler.name()}, {sampler.config.steps} steps",
        }

    def _chosen(self, split: Split, n: int) -> str:
        available = len(self._examples(split))
        return f"all {n} {split} images" if n == available else f"{n} of {available} {split} images, drawn by the seed"

    def _examples(self, split: Split) -> Any:
        # Any: Examples is a protocol whose check at run time would read every label
        return self._evaluation.test if split == "test" else self._evaluation.train

    def _real(self, split: Split, n: int) -> Extracted:
        return self._once(split, n, lambda: self._drawn(split, n))

    def _drawn(self, split: Split, n: int) -> Iterator[Levels]:
        examples = self._examples(split)
        chosen = self._evaluation.streams.permutation(len(examples), "features/real images", split)[:n]
        for start in range(0, n, self._config.batch_size):
            yield examples.images(chosen[start : start + self._config.batch_size]).long()

    def _once(self, which: str, n: int, batches: Any) -> Extracted:
        key = ("features", self._config.features, self._config.settings, which, n)
        return self._evaluation.once(key, lambda: self._extract(which, batches(), n))

    def _extract(self, which: str, batches: Iterable[Levels], n: int) -> Extracted:
        size, rows = self._config.batch_size, _Rows(n)
        # a GPU would else round convolutions to the 10 bits of TF32
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for levels in batches:
                for start in range(0, len(levels), size):
                    rows.add(self.space.extract(to_rgb(levels[start : start + size], self._evaluation.image.levels)))
        features = rows.found.features
        broken = int((~features.isfinite().all(dim=1)).sum())
        if broken:
            raise UnavailableError(
                f"{self.space.name} features of {broken} of {len(features)} images ({which}) are NaN or infinite; "
                f"the weights (SHA-256 {self.space.weights_sha256}) are damaged or of another network"
            )
        return rows.found


class _Rows:
    """Features of n images, written in place as they come.

    Pieces joined at the end would take twice the memory, and would be scattered among the memory of the
    batches, which the system then could not take back.
    """

    def __init__(self, n: int):
        self._n = n
        self._filled = 0
        self._tensors: dict[str, Tensor] = {}

    def add(self, piece: Extracted) -> None:
        """The features of the next images."""
        stop = self._filled + len(piece.features)
        for name, values in (("features", piece.features), ("logits", piece.logits)):
            if values is not None:
                whole = self._tensors.setdefault(name, values.new_empty(self._n, *values.shape[1:]))
                whole[self._filled : stop] = values
        self._filled = stop

    @property
    def found(self) -> Extracted:
        """All of them."""
        assert self._filled == self._n, f"features of {self._filled} of {self._n} images"
        return Extracted(self._tensors["features"], self._tensors.get("logits"))
