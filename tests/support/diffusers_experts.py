"""Experts read from small folders of diffusers."""

from pathlib import Path

import torch

from moeframe.interfaces.component import ImageShape
from moeframe_pretrained.diffusers.expert import DiffusersExpert

IMAGE = ImageShape(3, 8, 8, 256)


def expert_of(folder: Path, image: ImageShape = IMAGE, **settings) -> DiffusersExpert:
    return DiffusersExpert(DiffusersExpert.Config(path=folder, **settings), image=image).eval()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a folder's .bin file."""
    path = folder / "diffusion_pytorch_model.bin"
    torch.save(change(torch.load(path, weights_only=True)), path)
