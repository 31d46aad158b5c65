"""Samples of one model, drawn once, kept on disk in blocks, and read back a batch at a time.

    seed-N/samples/00000000.safetensors, 00000256.safetensors, ...

A block holds integer levels, which samples were not finite, and the key of what drew them. Drawing goes on where an
interrupted one stopped; blocks of another model or sampler are drawn again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moeframe.diffusion import to_levels
from moeframe.shapes import Images, Levels
from moeframe.storage.atomic import write_file

KEY = "drawn_by"


@dataclass(frozen=True)
class Samples:
    """A batch of samples; one with a NaN or infinite pixel holds level 0 there and is not `finite`."""

    levels: Levels
    finite: Bool[Tensor, " batch"]

    @classmethod
    def of_pixels(cls, pixels: Images, n_levels: int) -> "Samples":
        """The nearest levels of a sampler's last state."""
        sound = pixels.isfinite()
        levels = torch.where(sound, to_levels(pixels.nan_to_num(0.0), n_levels), 0)
        return cls(levels.cpu(), sound.flatten(1).all(dim=1).cpu())

    @classmethod
    def joined(cls, parts: Sequence["Samples"]) -> "Samples":
        """One after the other."""
        return cls(torch.cat([part.levels for part in parts]), torch.cat([part.finite for part in parts]))

    @property
    def broken(self) -> int:
        """How many are not finite."""
        return int((~self.finite).sum())


class SampleStore:
    """The samples 0, 1, 2 ... of one model, in blocks of `block` samples below `folder`."""

    def __init__(self, folder: Path, key: str, block: int, draw: Callable[[int, int], Samples]):
        self._folder = folder
        self._key = key
        self._block = block
        self._draw = draw

    def batches(self, n: int) -> Iterator[Samples]:
        """The first n samples, a block at a time; those that are not there yet are drawn and kept first."""
        for start in range(0, n, self._block):
            yield self._up_to(start, min(self._block, n - start))

    def _up_to(self, start: int, count: int) -> Samples:
        """The first `count` samples of the block that starts at `start`."""
        path = self._folder / f"{start:08d}.safetensors"
        kept = self._read(path)
        have = 0 if kept is None else len(kept.levels)
        if kept is None or have < count:
            drawn = self._draw(start + have, start + count)
            kept = drawn if kept is None else Samples.joined([kept, drawn])
            self._write(path, kept)
        return Samples(kept.levels[:count], kept.finite[:count])

    def _read(self, path: Path) -> Samples | None:
        """The block, or None where there is none of this model; a damaged one is drawn again."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get(KEY) != self._key:
                    return None
                return Samples(file.get_tensor("levels").long(), file.get_tensor("finite"))
        except (SafetensorError, OSError):
            return None

    def _write(self, path: Path, samples: Samples) -> None:
        stored = torch.uint8 if int(samples.levels.max()) < 256 else torch.int32
        tensors = {"levels": samples.levels.to(stored), "finite": samples.finite}
        write_file(path, safetensors.torch.save(tensors, metadata={KEY: self._key}))
