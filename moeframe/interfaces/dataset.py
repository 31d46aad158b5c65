"""Dataset: integer images in a train and a test split, with a card that says where they come from."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch

from moeframe.errors import DataError
from moeframe.interfaces.component import Component, ImageShape
from moeframe.shapes import ItemIds, Levels, PerItem, SliceIds

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@runtime_checkable
class Examples(Protocol):
    """One split. Images are fetched by index, so that a large split never has to fit in memory."""

    labels: SliceIds
    """Class number per image; zeros where the data has no classes."""
    label_names: tuple[str, ...]
    attributes: Mapping[str, PerItem]
    """Further facts per image by name (CelebA's 40, say); empty where the data has none."""
    names: Sequence[str]
    """File name or key of each image, unique in the dataset; empty where images have no names."""

    def __len__(self) -> int: ...

    def images(self, indices: ItemIds) -> Levels:
        """Return the images at `indices`: integers 0 .. levels-1 in their stored type, uint8 for 8-bit data.

        Widen them before arithmetic, as `in_batches` does: uint8 wraps around.
        """
        ...


class InMemoryExamples:
    """A split whose images are one tensor."""

    def __init__(
        self,
        images: Levels,
        labels: SliceIds,
        label_names: tuple[str, ...] = (),
        attributes: Mapping[str, PerItem] | None = None,
        names: Sequence[str] = (),
    ):
        assert len(images) == len(labels)
        assert not names or len(names) == len(images)
        self._images = images
        self.labels = labels
        self.attributes = attributes or {}
        self.names = names
        self.label_names = label_names or tuple(str(i) for i in range(int(labels.max()) + 1 if len(labels) else 0))

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices: ItemIds) -> Levels:
        """The images at `indices`, in the type that they are kept in."""
        return self._images[indices]


def in_batches(examples: Examples, batch_size: int = 256, stop: int | None = None) -> Iterator[tuple[ItemIds, Levels]]:
    """(indices, int64 images) of the first `stop` examples, in order, at most `batch_size` at a time."""
    n = len(examples) if stop is None else min(stop, len(examples))
    for start in range(0, n, batch_size):
        indices = torch.arange(start, min(start + batch_size, n))
        yield indices, examples.images(indices).long()


class Dataset(Component):
    """Images as integers 0 .. levels-1, a train and a test split, and a provenance card. Nothing is downloaded."""

    KIND: ClassVar[str] = "datasets"

    class Config(Component.Config):
        pass

    def __init__(self, config: Config):
        self.config = config

    @property
    @abstractmethod
    def image(self) -> ImageShape:
        """Size and number of levels of every image."""

    @abstractmethod
    def split(self, name: Split) -> Examples:
        """The `train` or the `test` examples. Raises DataError naming the file when data is missing or corrupt."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Provenance, JSON values only.

        Keys: source, licence, splits (sizes), split_rule, levels, transformations (all, in order), files (hashes).
        """

    @property
    def split_rule(self) -> str:
        """Which images are test, in words; the card's, which a dataset with a slow card overrides."""
        return str(self.card().get("split_rule", "not stated"))

    @property
    def ignored_files(self) -> Mapping[str, int]:
        """Number of files that are not used, by what they have in common, such as their extension."""
        return {}

    def missing(self) -> str | None:
        """Why the data is not usable here and what to do, or None when it is complete: both splits are opened."""
        try:
            for name in SPLITS:
                self.split(name)
        except DataError as problem:
            return str(problem)
        return None
