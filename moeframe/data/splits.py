"""The data of a run: the dataset of its spec with both splits open."""

from dataclasses import dataclass

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Dataset, Examples
from moeframe.plugin.registry import Registry
from moeframe.spec.schema import RunSpec


@dataclass(frozen=True)
class Splits:
    """A dataset and its two splits."""

    dataset: Dataset
    train: Examples
    test: Examples


def open_splits(spec: RunSpec, registry: Registry) -> Splits:
    """Open the dataset of a spec. Raises DataError when files are missing or a split has too few images."""
    dataset = registry.get(Dataset, spec.dataset.type)(spec.dataset)
    missing = dataset.missing()
    if missing:
        raise DataError(missing)
    splits = Splits(dataset, dataset.split("train"), dataset.split("test"))
    if len(splits.train) < 1 or len(splits.test) < 2:
        raise DataError(
            f"dataset '{spec.dataset.type}' has {len(splits.train)} training and {len(splits.test)} test images; "
            "a run needs at least 1 and 2, because an interval needs two"
        )
    return splits
