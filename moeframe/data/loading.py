"""Training images fetched ahead by worker processes, in an order that does not depend on their number."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from moeframe.errors import MoeframeError
from moeframe.interfaces.dataset import Examples
from moeframe.shapes import ItemIds, Levels


@dataclass(frozen=True)
class Batch:
    """Images and their numbers in the split."""

    indices: ItemIds
    images: Levels


WORKERS_AT_MOST = "MOEFRAME_WORKERS"
"""Environment variable: the largest number of decoding processes, whatever a spec requests."""


def fetch_batches(examples: Examples, plan: Iterable[ItemIds], workers: int) -> Iterator[Batch]:
    """The batches of `plan`, in its order; with workers, two per worker are decoded ahead of their use.

    Raises what fetching raises, DataError for a corrupt image, say, as if it had been fetched here.
    """
    source = _Fetch(examples)
    fetched: Iterable[Batch | MoeframeError]
    workers = min(workers, int(os.environ.get(WORKERS_AT_MOST, workers)))
    if workers == 0:
        fetched = (source[indices] for indices in plan)
    else:
        fetched = DataLoader(source, sampler=plan, batch_size=None, num_workers=workers, prefetch_factor=2)
    for batch in fetched:
        if isinstance(batch, MoeframeError):
            raise batch
        yield batch


class _Fetch(Dataset[Batch | MoeframeError]):
    """Maps indices to a batch; an error travels as a value, because a worker would wrap it in its traceback."""

    def __init__(self, examples: Examples):
        self._examples = examples

    def __getitem__(self, indices: ItemIds) -> Batch | MoeframeError:
        try:
            return Batch(indices, self._examples.images(indices))
        except MoeframeError as error:
            return error
