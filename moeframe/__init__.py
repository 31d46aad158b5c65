"""moeframe: merge diffusion experts with a gate, and measure what the merge did.

This page holds what a plugin author or a notebook imports, loaded at first use so that `import moeframe` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moeframe.errors import MoeframeError
    from moeframe.interfaces.component import Component, ImageShape
    from moeframe.interfaces.dataset import Dataset, Examples, InMemoryExamples
    from moeframe.interfaces.denoiser import Denoised, Denoiser
    from moeframe.interfaces.expert import Expert
    from moeframe.interfaces.exporter import Exporter, TrainedModel
    from moeframe.interfaces.gate import Gate, Routing
    from moeframe.interfaces.launcher import Ended, Launcher, Task
    from moeframe.interfaces.loss import Loss, TrainingStep
    from moeframe.interfaces.metric import Evaluation, Measurement, Metric
    from moeframe.interfaces.sampler import Sampler, SamplerState
    from moeframe.interfaces.schedule import NoiseSchedule
    from moeframe.interfaces.slicer import Slicer
    from moeframe.interfaces.trunk import AdapterExpert, Trunk, TrunkFeatures
    from moeframe.model.mixture import MergedDenoiser
    from moeframe.plugin.hookspecs import hookimpl
    from moeframe.randomness import Streams, Trajectories
    from moeframe.runs.loaded import load
    from moeframe.runs.pipeline import merge, run

__version__ = "0.1.0"

_HOMES = {
    "AdapterExpert": "interfaces.trunk",
    "Component": "interfaces.component",
    "Dataset": "interfaces.dataset",
    "Denoised": "interfaces.denoiser",
    "Denoiser": "interfaces.denoiser",
    "Ended": "interfaces.launcher",
    "Evaluation": "interfaces.metric",
    "Examples": "interfaces.dataset",
    "Expert": "interfaces.expert",
    "Exporter": "interfaces.exporter",
    "Gate": "interfaces.gate",
    "ImageShape": "interfaces.component",
    "InMemoryExamples": "interfaces.dataset",
    "Launcher": "interfaces.launcher",
    "Loss": "interfaces.loss",
    "Measurement": "interfaces.metric",
    "MergedDenoiser": "model.mixture",
    "Metric": "interfaces.metric",
    "MoeframeError": "errors",
    "NoiseSchedule": "interfaces.schedule",
    "Routing": "interfaces.gate",
    "Sampler": "interfaces.sampler",
    "SamplerState": "interfaces.sampler",
    "Slicer": "interfaces.slicer",
    "Streams": "randomness",
    "Task": "interfaces.launcher",
    "TrainedModel": "interfaces.exporter",
    "TrainingStep": "interfaces.loss",
    "Trajectories": "randomness",
    "Trunk": "interfaces.trunk",
    "TrunkFeatures": "interfaces.trunk",
    "hookimpl": "plugin.hookspecs",
    "load": "runs.loaded",
    "merge": "runs.pipeline",
    "run": "runs.pipeline",
}

__all__ = [
    "AdapterExpert",
    "Component",
    "Dataset",
    "Denoised",
    "Denoiser",
    "Ended",
    "Evaluation",
    "Examples",
    "Expert",
    "Exporter",
    "Gate",
    "ImageShape",
    "InMemoryExamples",
    "Launcher",
    "Loss",
    "Measurement",
    "MergedDenoiser",
    "Metric",
    "MoeframeError",
    "NoiseSchedule",
    "Routing",
    "Sampler",
    "SamplerState",
    "Slicer",
    "Streams",
    "Task",
    "TrainedModel",
    "TrainingStep",
    "Trajectories",
    "Trunk",
    "TrunkFeatures",
    "hookimpl",
    "load",
    "merge",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"moeframe.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'moeframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
