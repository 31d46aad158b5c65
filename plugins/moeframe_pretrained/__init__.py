"""Experts that load checkpoints of other codebases, and exporters to them; needs the extra `pretrained`."""

from moeframe.interfaces.expert import Expert
from moeframe.interfaces.exporter import Exporter
from moeframe.plugin.hookspecs import hookimpl
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.edm.expert import EdmExpert
from moeframe_pretrained.exporters.diffusers import DiffusersExporter
from moeframe_pretrained.exporters.safetensors import SafetensorsExporter
from moeframe_pretrained.moeframe_runs.checkpoint import CheckpointExpert
from moeframe_pretrained.moeframe_runs.run import RunExpert
from moeframe_pretrained.vdm.expert import VdmExpert

MOEFRAME_API = 1


@hookimpl
def moeframe_experts() -> list[type[Expert]]:
    """Experts by the family of their checkpoint."""
    return [CheckpointExpert, DiffusersExpert, EdmExpert, RunExpert, VdmExpert]


@hookimpl
def moeframe_exporters() -> list[type[Exporter]]:
    """Formats of an exported model."""
    return [DiffusersExporter, SafetensorsExporter]
