"""Small folders as diffusers writes them, with random weights: for tests and benchmarks."""

from pathlib import Path
from typing import Any

import torch

SMALL = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}


def small_network(seed: int = 0, **settings: Any) -> Any:
    """A UNet2DModel with two resolutions and attention, for 3x8x8 images."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**{**SMALL, **settings}).eval()


def write_flat(folder: Path, network: Any, *, safe: bool = True, **scheduler: Any) -> Path:
    """config.json and scheduler_config.json side by side."""
    from diffusers import DDPMScheduler

    network.save_pretrained(folder, safe_serialization=safe)
    DDPMScheduler(**scheduler).save_pretrained(folder)
    return folder


def write_pipeline(folder: Path, network: Any, **scheduler: Any) -> Path:
    """A pipeline's folder: model_index.json, unet/ and scheduler/."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(network, DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder
