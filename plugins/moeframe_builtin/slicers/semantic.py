"""Slices of similar images, for data without labels: k-means on features, or groups that a file lists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import Examples
from moeframe.interfaces.slicer import Slicer, State
from moeframe.randomness import Streams, derive_key
from moeframe.shapes import Levels, SliceIds
from moeframe_builtin.features.efficientnet import PACKAGES, efficientnet_lite0, why_missing
from moeframe_builtin.slicers.support.by_feature import Balance
from moeframe_builtin.slicers.support.clusters import Blocks, Clusters
from moeframe_builtin.slicers.support.label_file import LabelFile
from moeframe_builtin.slicers.support.luma import luma

THUMBNAIL_SIZE = 8
N_QUANTILES = 9
TAN_22_5 = (414_214, 1_000_000)
"""tan 22.5° as a ratio of integers, the border between an axis and a diagonal."""
NETWORK_SIZE = 64
"""Pixels a side that images are resized to for the network, as the metric `frechet` does."""
HIGHEST_LEVEL = 255


def thumbnail_colours(images: Levels) -> Tensor:
    """Colours averaged over the areas of an 8x8 grid, levels, (batch, channels x 64), float64."""
    return F.adaptive_avg_pool2d(images.double(), THUMBNAIL_SIZE).flatten(1)


def gradient_orientations(images: Levels) -> Tensor:
    """Share of the luma's gradient energy per orientation, (batch, 4), float64, rows sum to one; zeros where flat.

    Orientations modulo 180°, each ±22.5°: along x, along y, both rising, one falling. Gradients are central
    differences, weighted by energy gx² + gy²: a histogram of oriented gradients (Dalal and Triggs, CVPR 2005) with
    four bins and one cell. Bins are chosen and summed in integers, so a row has the same bits in any batch.
    """
    y = luma(images)
    gx = y[:, 1:-1, 2:] - y[:, 1:-1, :-2]
    gy = y[:, 2:, 1:-1] - y[:, :-2, 1:-1]
    short, long = TAN_22_5
    along_x = gy.abs() * long <= gx.abs() * short
    along_y = ~along_x & (gx.abs() * long <= gy.abs() * short)
    rising = ~along_x & ~along_y & (gx.sign() == gy.sign())
    falling = ~along_x & ~along_y & ~rising
    energy = gx**2 + gy**2
    sums = torch.stack([(energy * part).sum(dim=(1, 2)) for part in (along_x, along_y, rising, falling)], dim=1)
    return sums.double() / sums.sum(dim=1, keepdim=True).clamp(min=1)


def colour_quantiles(images: Levels) -> Tensor:
    """Nine quantiles 0, 1/8 .. 1 (nearest rank below) of each channel over pixels, levels, (batch, channels x 9).

    The squared distance of two rows is about nine times the squared 2-Wasserstein distance of the two colour
    distributions, summed over channels; the position of a colour in the image does not matter.
    """
    pixels = images.flatten(2).sort(dim=2).values
    ranks = torch.arange(N_QUANTILES) * (pixels.shape[2] - 1) // (N_QUANTILES - 1)
    return pixels[:, :, ranks].flatten(1).double()


def network_features(images: Levels) -> Tensor:
    """EfficientNet-Lite0 features (ImageNet; mean of the last 1280 maps) of 8-bit images, (batch, 1280), float64.

    Images of fewer levels look dark to the network, which was trained on photographs.
    On the CPU in float32, so a row may differ by rounding (about 1e-6) with the other images of its batch. Raises
    DataError for images with neither one nor three channels, and when the packages of the network are missing.
    """
    if missing := why_missing(PACKAGES):
        raise DataError(f"semantic: features 'network': {missing}, or use features: thumbnail")
    if images.shape[1] not in (1, 3):
        raise DataError(
            f"semantic: features 'network' need images of 1 or 3 channels, and these have {images.shape[1]}"
        )
    extract, _ = efficientnet_lite0(NETWORK_SIZE, torch.device("cpu"))
    return extract(images.float() / HIGHEST_LEVEL).double()


FEATURES: dict[str, Blocks] = {
    "thumbnail": lambda images: [thumbnail_colours(images), gradient_orientations(images)],
    "colour_quantiles": lambda images: [colour_quantiles(images)],
    "network": lambda images: [network_features(images)],
}


class Semantic(Slicer):
    """Slices of similar images by k-means on their features, without labels; or the groups that a file lists.

    thumbnail: colours on an 8x8 grid and the orientations of gradients, the two blocks scaled to equal total variance
    over the training images. colour_quantiles: the distribution of colours alone. network: what EfficientNet-Lite0,
    trained on ImageNet, sees in an 8-bit image.
    """

    class Config(Slicer.Config):
        type: Literal["semantic"] = "semantic"
        labels: Path | None = None
        """CSV file with a header and two columns, image name and group; its groups, by name, are the slices."""
        features: Literal["thumbnail", "colour_quantiles", "network"] | None = Field(
            default=None, validate_default=True
        )
        """Features of k-means; thumbnail if neither features nor labels are given."""

        balance: Balance = "natural"
        """natural: the nearest centroid, clusters differ in size; quantile: borders moved until the sizes are equal."""

        def missing(self) -> str | None:
            """The file of labels."""
            if self.labels is None or self.labels.is_file():
                return None
            return f"no file {self.labels}; labels is a CSV file of image names and groups"

        @field_validator("features")
        @classmethod
        def _thumbnail_unless_labels(cls, features: str | None, info: Any) -> str | None:
            # Any: pydantic's ValidationInfo is a protocol that cannot be checked at run time
            return "thumbnail" if features is None and info.data.get("labels") is None else features

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:  # noqa: ARG002
            """Refuse features beside labels, which already determine the slices."""
            if self.labels is not None and self.features is not None:
                yield "features", "labels already say the slice of each image; leave out either labels or features"
            if self.labels is not None and self.balance == "quantile":
                yield "balance", "labels already say the slice of each image; leave out either labels or balance"

    config: Config

    def __init__(self, config: Config, *, n_slices: int, streams: Streams):
        super().__init__(config, n_slices=n_slices, streams=streams)
        self._grouping: LabelFile | Clusters
        if config.labels is not None:
            assert config.features is None, "Config.conflicts reports this"
            self._grouping = LabelFile(config.labels, n_slices=n_slices)
        else:
            assert config.features is not None
            seed = derive_key(streams.seed, "semantic slicer")
            self._grouping = Clusters(
                config.features, FEATURES[config.features], n_slices=n_slices, seed=seed, balance=config.balance
            )

    def fit(self, train: Examples) -> None:
        """Learn clusters, or read the label file. Raises DataError when the images or the file do not give K slices."""
        self._grouping.fit(train)

    def assign(self, examples: Examples) -> SliceIds:
        """The nearest cluster, or the group that the file lists. Raises DataError for an image that it does not."""
        return self._grouping.assign(examples)

    @property
    def slice_names(self) -> list[str]:
        """The groups of the file, or clusters by number."""
        return self._grouping.slice_names

    def state(self) -> State:
        """Centroids and scales, or the images and groups of the file."""
        return self._grouping.state()

    def restore(self, state: State) -> None:
        """Restore what `state` returned; the label file is not read again."""
        self._grouping.restore(state)
