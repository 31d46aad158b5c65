"""Small images and slicers fitted to them."""

import torch

from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.randomness import Streams


def random_images(n: int, *, channels: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    """Noise of contrast and brightness that differ from image to image."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, channels, size, size, generator=generator)
    contrast, shade = torch.rand(2, n, 1, 1, 1, generator=generator)
    return ((noise * contrast + shade * (1 - contrast)) * 255).long()


def pictured(images: torch.Tensor, **attributes: list[float]) -> InMemoryExamples:
    values = {name: torch.tensor(listed, dtype=torch.float32) for name, listed in attributes.items()}
    return InMemoryExamples(images, torch.zeros(len(images), dtype=torch.long), attributes=values)


def made(component, k: int, seed: int = 0, **settings):
    return component(component.Config(**settings), n_slices=k, streams=Streams(seed))


def fitted(component, k: int, train: InMemoryExamples, seed: int = 0, **settings):
    slicer = made(component, k, seed, **settings)
    slicer.fit(train)
    return slicer
