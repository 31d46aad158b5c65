"""Addressed random streams: every draw is a function of (seed, purpose, address), never of earlier draws.

Resuming therefore needs no generator state, the order of evaluation does not matter, and two variants of a study see
the same batches and the same noise. Draws are made on the CPU, so they do not depend on the device either.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from moeframe.shapes import ItemIds

Address = int | str


def derive_key(seed: int, purpose: str, *address: Address) -> int:
    """A 63-bit key for one draw: BLAKE2b of its full address.

    >>> derive_key(0, "noise", 17) == derive_key(0, "noise", 17)
    True
    >>> derive_key(0, "noise", 17) == derive_key(0, "noise", 18)
    False
    """
    text = "\x1f".join([str(seed), purpose, *(f"{type(part).__name__}:{part}" for part in address)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Streams:
    """All random draws that belong to one seed."""

    seed: int

    def generator(self, purpose: str, *address: Address) -> torch.Generator:
        """A fresh CPU generator for this address."""
        return torch.Generator().manual_seed(derive_key(self.seed, purpose, *address))

    def normal(self, shape: Sequence[int], purpose: str, *address: Address) -> Tensor:
        """Standard normal draws of `shape`, float32, on the CPU."""
        return torch.randn(tuple(shape), generator=self.generator(purpose, *address))

    def uniform(self, shape: Sequence[int], purpose: str, *address: Address) -> Tensor:
        """Uniform draws on [0, 1) of `shape`, float32, on the CPU."""
        return torch.rand(tuple(shape), generator=self.generator(purpose, *address))

    def permutation(self, n: int, purpose: str, *address: Address) -> Tensor:
        """A random order of 0 .. n-1."""
        return torch.randperm(n, generator=self.generator(purpose, *address))

    def low_discrepancy(self, n: int, purpose: str, *address: Address) -> Tensor:
        """n points on [0, 1), one in each interval of length 1/n, sharing one offset (VDM, appendix I.1)."""
        offset = torch.rand((), dtype=torch.float64, generator=self.generator(purpose, *address))
        points = torch.remainder(offset + torch.arange(n, dtype=torch.float64) / n, 1.0).float()
        return points.clamp(max=1 - 2**-24)  # float32 rounds what is nearer to 1 up to it

    @contextmanager
    def governing_torch(self, purpose: str, *address: Address) -> Iterator[None]:
        """Within the block torch's global generators (initialisers, dropout) are seeded from this address."""
        generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # nothing draws on a GPU before that
            generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
        states = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(derive_key(self.seed, purpose, *address))
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def batch_indices(streams: Streams, n: int, batch_size: int, step: int, purpose: str) -> Tensor:
    """Indices into n items of batch number `step`: consecutive pieces of one new permutation per epoch."""
    start, stop = step * batch_size, (step + 1) * batch_size
    first, last = start // n, (stop - 1) // n
    order = torch.cat([streams.permutation(n, purpose, epoch) for epoch in range(first, last + 1)])
    return order[start - first * n : stop - first * n]


@dataclass(frozen=True)
class Trajectories:
    """A batch of items (images or sampling trajectories) and where their random draws come from.

    Each item has its own stream, so a draw does not depend on which other items share the batch.
    """

    streams: Streams
    ids: ItemIds

    @classmethod
    def numbered(cls, streams: Streams, start: int, stop: int) -> "Trajectories":
        """The items start .. stop-1."""
        return cls(streams, torch.arange(start, stop))

    def normal(self, shape: Sequence[int], purpose: str, *address: Address) -> Tensor:
        """Standard normal draws, (batch, *shape), float32, on the CPU."""
        return torch.stack([self.streams.normal(shape, purpose, item, *address) for item in self.ids.tolist()])

    def choice(self, n: int, purpose: str, per: Tensor | None = None) -> Tensor:
        """A uniform draw from 0 .. n-1 per item; with `per` (batch,) also a function of that value's bits."""
        salts = [0] * len(self.ids) if per is None else per.detach().float().cpu().view(torch.int32).tolist()
        keys = [
            derive_key(self.streams.seed, purpose, item, salt)
            for item, salt in zip(self.ids.tolist(), salts, strict=True)
        ]
        return torch.tensor([key % n for key in keys], dtype=torch.long)
