"""Slices of images that are close in a feature space: k-means and its state."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Examples, in_batches
from moeframe.interfaces.slicer import State
from moeframe.shapes import Levels, SliceIds
from moeframe_builtin.slicers.support.by_feature import Balance, SlicedSplit, refuse_no_images

Features = NDArray[np.float64]
Blocks = Callable[[Levels], list[Tensor]]
"""Images to blocks of features, each (batch, features), float64: an image's own, whatever others share the batch."""

BATCH = 256
HALVINGS, SWEEPS = 24, 20
FITTED_IMAGES = 20_000
"""Scales and centroids come from at most this many training images, drawn by seed and content; all are assigned."""


def k_means(features: Features, n_clusters: int, seed: int) -> Features:
    """Centroids of Lloyd's algorithm, k-means++ and the best of 4 starts (scikit-learn), largest cluster first.

    On one thread: several would add up in the order in which they finish.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        fitted = KMeans(n_clusters, n_init=4, random_state=seed % 2**32, algorithm="lloyd").fit(features)
    sizes = np.bincount(fitted.labels_, minlength=n_clusters)
    centroids: Features = fitted.cluster_centers_[np.argsort(-sizes, kind="stable")]
    return centroids


def balancing_offsets(distances: Features) -> Features:
    """What to take from the squared distances, (rows, clusters), so that each cluster is nearest to as many rows.

    Moved borders between cells make a power diagram, whose cells can have any sizes (Aurenhammer, Hoffmann and Aronov
    1998). The offsets are those of an entropic transport of the rows to clusters of equal mass (Sinkhorn), the entropy
    falling by halves until hardly a row is shared. Sizes can differ by a few rows, and by as many as are equal.
    """
    from scipy.special import log_softmax, logsumexp

    n, k = distances.shape
    offsets, best, fewest = np.zeros(k), np.zeros(k), n
    temperature = float(distances.std()) or 1.0
    for _ in range(HALVINGS):
        for _ in range(SWEEPS):
            shares = log_softmax((offsets - distances) / temperature, axis=1)
            offsets = offsets + temperature * (np.log(n / k) - logsumexp(shares, axis=0))
        sizes = np.bincount((distances - offsets).argmin(axis=1), minlength=k)
        if (spread := int(sizes.max() - sizes.min())) < fewest:
            best, fewest = offsets - offsets.mean(), spread
        if fewest <= 1:
            break
        temperature /= 2
    return best


class Clusters:
    """K clusters of the training images, the largest first; every block of features weighs the same.

    `features` names the blocks in messages and in slice names.
    """

    def __init__(self, features: str, blocks: Blocks, *, n_slices: int, seed: int, balance: Balance = "natural"):
        self._features = features
        self._blocks = blocks
        self._n_slices = n_slices
        self._seed = seed
        self._balance = balance
        self._centroids: Features | None = None
        self._offsets: Features = np.zeros(n_slices)
        self._scales: list[float] | None = None
        self._train: SlicedSplit | None = None

    def fit(self, train: Examples) -> None:
        """Learn scales and centroids, of up to FITTED_IMAGES images whatever their order.

        Raises DataError when fewer than K images differ in their features.
        """
        refuse_no_images(train, "semantic")
        seen = self._seen(train)
        parts = [self._blocks(train.images(rows).long()) for rows in torch.split(seen, BATCH)]
        blocks = [torch.cat(block).numpy() for block in zip(*parts, strict=True)]
        order = np.lexsort(np.concatenate(blocks, axis=1).T[::-1])
        blocks = [block[order] for block in blocks]
        self._scales = [float(np.sqrt(block.var(axis=0).sum())) or 1.0 for block in blocks]
        features = self._scaled(blocks)
        n_distinct = 1 + int((np.diff(features, axis=0) != 0).any(axis=1).sum())
        if n_distinct < self._n_slices:
            raise DataError(
                f"semantic: {self._n_slices} slices need as many different images, but the features "
                f"'{self._features}' of the {len(seen)} training images take {n_distinct} values; "
                "use fewer experts or other features"
            )
        self._centroids = k_means(features, self._n_slices, self._seed)
        self._offsets = np.zeros(self._n_slices)
        if self._balance == "quantile":
            self._offsets = balancing_offsets(self._distances(features))
        if len(seen) == len(train):
            ids = torch.empty(len(train), dtype=torch.long)
            ids[torch.from_numpy(order)] = self._nearest(features)
            self._train = SlicedSplit(train, ids)

    def assign(self, examples: Examples) -> SliceIds:
        """The nearest centroid, Euclidean, once the offsets are taken off the squares; of equals the first."""
        if self._train is not None and self._train.examples is examples:
            return self._train.ids.clone()
        parts = [
            self._nearest(self._scaled([block.numpy() for block in self._blocks(images)]))
            for _, images in in_batches(examples, BATCH)
        ]
        return torch.cat([torch.empty(0, dtype=torch.long), *parts])

    @property
    def slice_names(self) -> list[str]:
        """Clusters by number; their content has no name."""
        return [f"{self._features} cluster {k}" for k in range(self._n_slices)]

    def state(self) -> State:
        """Centroids, row after row, the scale that each block of features is divided by, and each cluster's offset."""
        assert self._centroids is not None, "fit first"
        assert self._scales is not None
        return {
            "centroids": self._centroids.flatten().tolist(),
            "scales": list(self._scales),
            "offsets": self._offsets.tolist(),
        }

    def restore(self, state: State) -> None:
        """Restore centroids, scales and offsets."""
        self._centroids = np.array(state["centroids"], dtype=np.float64).reshape(self._n_slices, -1)
        self._scales = list(state["scales"])
        self._offsets = np.array(state["offsets"], dtype=np.float64)
        self._train = None

    def _seen(self, train: Examples) -> Tensor:
        """The rows of the training images that are learned from: drawn by content, so that their order says nothing."""
        if len(train) <= FITTED_IMAGES:
            return torch.arange(len(train))
        key = self._seed.to_bytes(16, "big", signed=True)
        draws = [
            hashlib.blake2b(image.numpy().tobytes(), key=key, digest_size=8).digest()
            for _, images in in_batches(train, BATCH)
            for image in images.contiguous()
        ]
        chosen = sorted(range(len(train)), key=draws.__getitem__)[:FITTED_IMAGES]
        return torch.tensor(sorted(chosen))

    def _scaled(self, blocks: list[Features]) -> Features:
        assert self._scales is not None, "fit or restore first"
        return np.concatenate([block / scale for block, scale in zip(blocks, self._scales, strict=True)], axis=1)

    def _nearest(self, features: Features) -> SliceIds:
        return torch.from_numpy((self._distances(features) - self._offsets).argmin(axis=1))

    def _distances(self, features: Features) -> Features:
        """Squared distance of each row from each centroid."""
        assert self._centroids is not None, "fit or restore first"
        # row by row sums instead of a matrix product, whose rounding depends on how many rows it has
        return np.stack([np.square(features - centroid).sum(axis=1) for centroid in self._centroids], axis=1)
