"""A small run on disk and the experts that are read from it."""

from pathlib import Path

import torch

from moeframe.assembly import build_model
from moeframe.interfaces.component import ImageShape
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe.storage import checkpoint
from moeframe.storage.checkpoint import Snapshot
from moeframe.storage.run_folder import RunFolder
from moeframe_pretrained.moeframe_runs.run import RunExpert

IMAGE = ImageShape(1, 8, 8, 16)


def write_run(folder: Path, registry, gate="softmax", experts=None) -> dict:
    """A run of two seeds whose weights are random; the models by (seed, group)."""
    spec = bind(
        {
            "name": "small",
            "seeds": [0, 3],
            "device": "cpu",
            "dataset": {"type": "gaussian", "size": 8, "levels": 16},
            "slicer": {"type": "color_variance"},
            "schedule": {"type": "linear"},
            "experts": experts
            or [{"type": "unet", "copies": 2, "channels": 4}, {"type": "unet", "channels": 8, "prediction": "noise"}],
            "gate": {"type": gate},
            "objective": [{"type": "nll"}],
            "sampler": {"type": "ddim", "steps": 3},
        },
        registry,
    )
    place = RunFolder(folder)
    place.write_spec(spec)
    models = {}
    for seed in spec.seeds:
        for i, group in enumerate(("model", "ema")):
            models[seed, group] = stirred(build_model(spec, registry, IMAGE, Streams(seed)), seed=10 * seed + i).eval()
        tensors = {group: models[seed, group].state_dict() for group in ("model", "ema")}
        checkpoint.save(place.checkpoints(seed), Snapshot(5, {**tensors, "optimizer": {}}))
    return models


def stirred(model, seed=0):
    """Every parameter moved: a network that starts at zero would agree with anything."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws))
    return model


def expert_of(folder: Path, image: ImageShape = IMAGE, **settings) -> RunExpert:
    return RunExpert(RunExpert.Config(path=folder, **settings), image=image).eval()


def probe() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.linspace(-6, 6, 5)
