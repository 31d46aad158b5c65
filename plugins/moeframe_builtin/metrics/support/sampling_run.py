"""One sampling run, as the cost metrics measure it, and what it ran on."""

from typing import Any

import torch

from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.metric import Evaluation
from moeframe.interfaces.sampler import SamplerState, last_state
from moeframe.randomness import Trajectories
from moeframe.runs.environment import describe_environment


def sample_once(evaluation: Evaluation, batch_size: int, denoiser: Denoiser | None = None) -> SamplerState:
    """The last state of one batch, sampled with `denoiser` (the model's own if not given); waits for the device."""
    items = Trajectories.numbered(evaluation.streams, 0, batch_size)
    noise = items.normal(evaluation.image.tensor_shape, "sampling/noise").to(evaluation.device)
    with torch.no_grad():
        last = last_state(evaluation.sampler.trajectory(denoiser or evaluation.denoiser, noise, items))
    synchronise(evaluation.device)
    return last


def synchronise(device: torch.device) -> None:
    """Wait until the device is idle; a CPU always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sampler_of(evaluation: Evaluation) -> str:
    """The sampler and its number of steps."""
    return f"{evaluation.sampler.name()}, {evaluation.sampler.config.steps} steps"


def run_facts(evaluation: Evaluation, batch_size: int) -> dict[str, Any]:
    """Sampler, batch size, device with its model, threads, and the versions of torch, CUDA and cuDNN."""
    environment = describe_environment(str(evaluation.device))
    facts = {
        "sampler": sampler_of(evaluation),
        "batch_size": batch_size,
        **{name: environment[name] for name in ("device", "device_name", "torch", "torch_threads")},
    }
    if evaluation.device.type == "cuda":
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return facts
