"""A trained model as settings in JSON and weights in safetensors."""

from pathlib import Path
from typing import Literal

from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe_pretrained.model_card import with_card
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert
from moeframe_pretrained.moeframe_runs.mixture_folder import mixture_of, write_mixture


class SafetensorsExporter(Exporter):
    """Settings as JSON and weights as safetensors, which the expert type `checkpoint` reads on any machine."""

    class Config(Exporter.Config):
        type: Literal["safetensors"] = "safetensors"

    def export_merged(self, model: TrainedModel, folder: Path) -> str:
        """Every expert, trunk and gate; as one expert of another merge it is `{type: checkpoint, path: ...}`."""
        mixture = mixture_of(model)
        write_mixture(mixture.model, mixture.image, mixture.schedule, folder)
        return with_card(model, None, folder, f"experts: [{{type: checkpoint, path: {folder}}}]")

    def export_expert(self, model: TrainedModel, expert: int, folder: Path) -> str:
        """One expert with weights of its own."""
        save_expert(model.experts[expert], folder)
        return with_card(model, expert, folder, f"experts: [{{type: checkpoint, path: {folder}}}]")
