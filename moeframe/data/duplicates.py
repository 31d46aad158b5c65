"""Duplicates: images that repeat another one exactly or nearly, within a split and, a leak, across the two.

Exact means equal pixels. Near means that a perceptual hash and a thumbnail both nearly agree, which finds most copies
that were scaled, recompressed, or made a little brighter; it does not find mirrored or clearly cropped copies.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int16, Integer
from torch import Tensor

from moeframe.interfaces.dataset import Examples, in_batches
from moeframe.shapes import Levels, PerItem

HASH_BITS = 64
MAX_BITS = 6
"""Near-duplicates differ in at most this many bits of the perceptual hash ..."""
MAX_DIFFERENCE = 0.15
"""... their thumbnails, each less its mean, by at most this share of their contrast (root mean squares) ..."""
MAX_SHIFT = 0.05
"""... and their mean brightness by at most this share of the range of levels."""

UNIT = 10_000
_CELLS = 2**26
_PAIRS = 250_000
_PIXELS = 2**22
_SHOWN = 10

METHOD = (
    "exact: equal pixels. Near, exact ones included: 64-bit pHash (the 8x8 lowest frequencies of a 32x32 luma's DCT "
    f"against their median) differing in at most {MAX_BITS} bits, and 8x8 colour thumbnails that differ by at most "
    f"{MAX_SHIFT:.0%} of the range in their mean and {MAX_DIFFERENCE:.0%} of their contrast in the rest. Mirrored and "
    "clearly cropped copies are not found; in data of much the same objects, likenesses count."
)

Hashes = Float[Tensor, "images 64"]
Thumbnails = Int16[Tensor, "images values"]
Rows = Integer[Tensor, " pairs"]


@dataclass(frozen=True)
class Fingerprints:
    """What identifies the images of one split."""

    digests: list[bytes]
    """A hash of the pixels of each image."""
    hashes: Hashes
    """Perceptual hash, a bit as -1 or 1."""
    thumbnails: Thumbnails
    """8x8 colours less their mean, in units of 1/10,000 of the range of levels."""
    means: PerItem
    """Mean of the thumbnail, as a share of the range."""


@dataclass(frozen=True)
class Counts:
    """How many images repeat an earlier one of their split, and how many test images also appear in train."""

    within_train: int
    within_test: int
    test_images_in_train: int


@dataclass(frozen=True)
class Duplicates:
    """Exact and near-duplicates of a dataset, exact ones counted as near too."""

    exact: Counts
    near: Counts
    shown: tuple[tuple[int, int], ...]
    """The first test images that also appear in train: their number, and that of the first such training image."""


def perceptual_hashes(images: Levels) -> Hashes:
    """pHash: the 8x8 lowest DCT frequencies of the luma at 32x32 pixels, against their median; -1 or 1 per bit.

    The constant term, which is brightness alone, is replaced by the next frequency of its row.
    """
    from scipy.fft import dctn

    luma = brightness(images).unsqueeze(1)
    small = F.interpolate(luma, (32, 32), mode="bilinear", antialias=True, align_corners=False)
    frequencies = dctn(small.squeeze(1).double().numpy(), axes=(1, 2), norm="ortho")
    low = frequencies[:, :8, :8].reshape(len(images), HASH_BITS)
    low[:, 0] = frequencies[:, 0, 8]
    return torch.from_numpy(np.where(low > np.median(low, axis=1, keepdims=True), 1.0, -1.0)).float()


def brightness(images: Levels) -> Float[Tensor, "batch height width"]:
    """Luma, as ITU-R BT.601 weighs the channels; the mean where they are not three."""
    weights = (0.299, 0.587, 0.114) if images.shape[1] == 3 else (1 / images.shape[1],) * images.shape[1]
    return torch.einsum("bchw,c->bhw", images.float(), torch.tensor(weights))


def fingerprints_of(examples: Examples, n_levels: int) -> Fingerprints:
    """The fingerprints of every image, read batch by batch, so that memory does not grow with the images' size."""
    n_dims = examples.images(torch.zeros(1, dtype=torch.long)).numel()
    digests: list[bytes] = []
    hashes, thumbnails, means = [], [], []
    for _, images in in_batches(examples, batch_size=max(1, _PIXELS // n_dims)):
        digests += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.short().numpy()]
        hashes.append(perceptual_hashes(images))
        small = F.adaptive_avg_pool2d(images.double(), 8).flatten(1) / (n_levels - 1)
        means.append(small.mean(dim=1))
        thumbnails.append(((small - means[-1].unsqueeze(1)) * UNIT).round().short())
    return Fingerprints(digests, torch.cat(hashes), torch.cat(thumbnails), torch.cat(means))


def near_pairs(first: Fingerprints, second: Fingerprints) -> Iterator[tuple[Rows, Rows]]:
    """(rows of first, rows of second) of all near-duplicates, some rows of `first` at a time."""
    n = len(second.digests)
    for start, stop in _blocks(len(first.digests), n):
        yield from _near(first, start, stop, second, n)


def repeated(of: Fingerprints) -> Bool[Tensor, " images"]:
    """Whether an earlier image of the same split nearly equals this one."""
    n = len(of.digests)
    found = torch.zeros(n, dtype=torch.bool)
    for start, stop in _blocks(n, n):
        for rows, others in _near(of, start, stop, of, stop):
            found[rows[others < rows]] = True
    return found


def _blocks(n: int, n_others: int) -> Iterator[tuple[int, int]]:
    """Ranges of n rows, short enough that a block of them against all others stays small in memory."""
    rows = max(1, _CELLS // max(1, n_others))
    for start in range(0, n, rows):
        yield start, min(start + rows, n)


def _near(
    first: Fingerprints, start: int, stop: int, second: Fingerprints, n_others: int
) -> Iterator[tuple[Rows, Rows]]:
    """The near-duplicates of the rows start .. stop-1 of `first` among the first `n_others` of `second`."""
    # bits that agree less bits that differ
    agreement = first.hashes[start:stop] @ second.hashes[:n_others].T
    rows, columns = torch.nonzero(agreement >= HASH_BITS - 2 * MAX_BITS, as_tuple=True)
    rows = rows + start
    for part in range(0, len(rows), _PAIRS):
        some, others = rows[part : part + _PAIRS], columns[part : part + _PAIRS]
        one, other = (each.float() / UNIT for each in (first.thumbnails[some], second.thumbnails[others]))
        difference, contrast = ((one - other).square().mean(dim=1), one.square().mean(dim=1))
        close = difference <= MAX_DIFFERENCE**2 * contrast
        close &= (first.means[some] - second.means[others]).abs() <= MAX_SHIFT
        close |= (difference == 0) & (first.means[some] == second.means[others])
        yield some[close], others[close]


def standing_in(of: Fingerprints, other: Fingerprints) -> Integer[Tensor, " images"]:
    """The first image of `other` that nearly equals each image; -1 where none does."""
    first = torch.full((len(of.digests),), len(other.digests))
    for rows, others in near_pairs(of, other):
        first.scatter_reduce_(0, rows, others, "amin")
    return torch.where(first == len(other.digests), -1, first)


def find_duplicates(train: Fingerprints, test: Fingerprints) -> Duplicates:
    """Count them within each split and across the two."""
    in_train = set(train.digests)
    exact = Counts(
        within_train=len(train.digests) - len(in_train),
        within_test=len(test.digests) - len(set(test.digests)),
        test_images_in_train=sum(digest in in_train for digest in test.digests),
    )
    twin = standing_in(test, train)
    leaked = torch.nonzero(twin >= 0).flatten()
    near = Counts(int(repeated(train).sum()), int(repeated(test).sum()), len(leaked))
    shown = tuple((i, int(twin[i])) for i in leaked[:_SHOWN].tolist())
    return Duplicates(exact, near, shown)
