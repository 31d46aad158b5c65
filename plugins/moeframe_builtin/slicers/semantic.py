"""Slices of similar images, for data without labels: k-means on features of the pixels."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Examples, in_batches
from moeframe.interfaces.slicer import Slicer, State
from moeframe.randomness import derive_key
from moeframe.shapes import Levels, SliceIds
from moeframe_builtin.slicers.luma import luma

Features = NDArray[np.float64]
Blocks = Callable[[Levels], list[Tensor]]

FITTED_IMAGES = 20_000
"""k-means sees at most this many training images, drawn by the seed; all are assigned."""
THUMBNAIL_SIZE = 8
N_QUANTILES = 9
TAN_22_5 = (414_214, 1_000_000)
"""tan 22.5° as a ratio of integers, the border between an axis and a diagonal."""


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
    distributions, summed over channels; where in the image a colour stands does not matter.
    """
    pixels = images.flatten(2).sort(dim=2).values
    ranks = torch.arange(N_QUANTILES) * (pixels.shape[2] - 1) // (N_QUANTILES - 1)
    return pixels[:, :, ranks].flatten(1).double()


FEATURES: dict[str, Blocks] = {
    "thumbnail": lambda images: [thumbnail_colours(images), gradient_orientations(images)],
    "colour_quantiles": lambda images: [colour_quantiles(images)],
}


def k_means(features: Features, n_clusters: int, seed: int) -> Features:
    """Centroids of Lloyd's algorithm, k-means++ and the best of 4 starts (scikit-learn), largest cluster first.

    On one thread: several would add up in the order in which they finish. At most FITTED_IMAGES rows, drawn by seed.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(features) > FITTED_IMAGES:
        chosen = np.random.default_rng(seed).choice(len(features), FITTED_IMAGES, replace=False)
        features = features[np.sort(chosen)]
    with threadpool_limits(limits=1):
        fitted = KMeans(n_clusters, n_init=4, random_state=seed % 2**32, algorithm="lloyd").fit(features)
    sizes = np.bincount(fitted.labels_, minlength=n_clusters)
    centroids: Features = fitted.cluster_centers_[np.argsort(-sizes, kind="stable")]
    return centroids


class Semantic(Slicer):
    """Slices of similar images by k-means on features of the pixels; needs no labels.

    thumbnail: colours on an 8x8 grid and the orientations of gradients, the two blocks scaled to equal total variance
    over the training images. colour_quantiles: the distribution of colours alone.
    """

    class Config(Slicer.Config):
        type: Literal["semantic"] = "semantic"
        features: Literal["thumbnail", "colour_quantiles"] = "thumbnail"

    config: Config
    _centroids: Features | None = None
    _scales: list[float] | None = None

    def fit(self, train: Examples) -> None:
        """Learn scales and centroids, whatever the order of the images.

        Raises DataError when fewer than K images differ in their features.
        """
        blocks = self._blocks(train)
        order = np.lexsort(np.concatenate(blocks, axis=1).T[::-1])
        blocks = [block[order] for block in blocks]
        self._scales = [float(np.sqrt(block.var(axis=0).sum())) or 1.0 for block in blocks]
        features = self._scaled(blocks)
        n_distinct = 1 + int((np.diff(features, axis=0) != 0).any(axis=1).sum())
        if n_distinct < self.n_slices:
            raise DataError(
                f"semantic: {self.n_slices} slices need as many different images, but the features "
                f"'{self.config.features}' of the {len(train)} training images take {n_distinct} values; "
                "use fewer experts or other features"
            )
        self._centroids = k_means(features, self.n_slices, derive_key(self.streams.seed, "semantic slicer"))

    def assign(self, examples: Examples) -> SliceIds:
        """The nearest centroid, Euclidean; of equals the first."""
        assert self._centroids is not None, "fit or restore first"
        if len(examples) == 0:
            return torch.empty(0, dtype=torch.long)
        features = self._scaled(self._blocks(examples))
        # row by row sums instead of a matrix product, whose rounding depends on how many rows it has
        distances = np.stack([np.square(features - centroid).sum(axis=1) for centroid in self._centroids], axis=1)
        return torch.from_numpy(distances.argmin(axis=1))

    @property
    def slice_names(self) -> list[str]:
        """Clusters by number; what they show is for the eye."""
        return [f"{self.config.features} cluster {k}" for k in range(self.n_slices)]

    def state(self) -> State:
        """Centroids, row after row, and the scale that each block of features is divided by."""
        assert self._centroids is not None, "fit first"
        assert self._scales is not None
        return {"centroids": self._centroids.flatten().tolist(), "scales": list(self._scales)}

    def restore(self, state: State) -> None:
        """Take back centroids and scales."""
        self._centroids = np.array(state["centroids"], dtype=np.float64).reshape(self.n_slices, -1)
        self._scales = list(state["scales"])

    def _blocks(self, examples: Examples) -> list[Features]:
        if len(examples) == 0:
            raise DataError("semantic: the training split has no images to learn clusters from; check the dataset")
        parts: list[list[Tensor]] = [FEATURES[self.config.features](images) for _, images in in_batches(examples)]
        return [torch.cat(block).numpy() for block in zip(*parts, strict=True)]

    def _scaled(self, blocks: list[Features]) -> Features:
        assert self._scales is not None
        return np.concatenate([block / scale for block, scale in zip(blocks, self._scales, strict=True)], axis=1)
