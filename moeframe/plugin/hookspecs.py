"""One pluggy hook per kind: a plugin returns the component classes that it supplies."""

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from moeframe.interfaces.dataset import Dataset
    from moeframe.interfaces.expert import Expert
    from moeframe.interfaces.exporter import Exporter
    from moeframe.interfaces.gate import Gate
    from moeframe.interfaces.launcher import Launcher
    from moeframe.interfaces.loss import Loss
    from moeframe.interfaces.metric import Metric
    from moeframe.interfaces.sampler import Sampler
    from moeframe.interfaces.schedule import NoiseSchedule
    from moeframe.interfaces.slicer import Slicer
    from moeframe.interfaces.trunk import Trunk

PROJECT = "moeframe"
API_VERSION = 1
"""A plugin may declare `MOEFRAME_API = 1` beside its hooks; one made for another version is set aside."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def moeframe_datasets() -> "list[type[Dataset]]":  # type: ignore[empty-body]
    """Datasets: images with a train and a test split."""


@hookspec
def moeframe_slicers() -> "list[type[Slicer]]":  # type: ignore[empty-body]
    """Slicers: partitions of the data, one slice per expert."""


@hookspec
def moeframe_experts() -> "list[type[Expert]]":  # type: ignore[empty-body]
    """Experts: denoising networks."""


@hookspec
def moeframe_trunks() -> "list[type[Trunk]]":  # type: ignore[empty-body]
    """Trunks: layers that experts share."""


@hookspec
def moeframe_gates() -> "list[type[Gate]]":  # type: ignore[empty-body]
    """Gates: weights of the experts."""


@hookspec
def moeframe_losses() -> "list[type[Loss]]":  # type: ignore[empty-body]
    """Losses: terms of the objective."""


@hookspec
def moeframe_schedules() -> "list[type[NoiseSchedule]]":  # type: ignore[empty-body]
    """Noise schedules: log-SNR as a function of time."""


@hookspec
def moeframe_samplers() -> "list[type[Sampler]]":  # type: ignore[empty-body]
    """Samplers: from noise to an image."""


@hookspec
def moeframe_metrics() -> "list[type[Metric]]":  # type: ignore[empty-body]
    """Metrics: one figure about a finished model."""


@hookspec
def moeframe_exporters() -> "list[type[Exporter]]":  # type: ignore[empty-body]
    """Exporters: formats that a trained model is written in."""


@hookspec
def moeframe_launchers() -> "list[type[Launcher]]":  # type: ignore[empty-body]
    """Launchers: where the runs of a study are carried out."""
