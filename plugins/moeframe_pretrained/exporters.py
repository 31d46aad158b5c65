"""A trained model as safetensors folders, or as folders of diffusers."""

import json
from pathlib import Path
from typing import Any, Literal

from moeframe.errors import InputError, UnavailableError
from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe.model.mixture import MergedDenoiser
from moeframe.storage.atomic import storage_errors_at, write_file
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.model_card import model_card
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert
from moeframe_pretrained.moeframe_runs.mixture_folder import Mixture, write_mixture

PIPELINE = "moeframe_pretrained.diffusers.pipeline"
TRAINING_STEPS = 1000


class SafetensorsExporter(Exporter):
    """Settings as JSON and weights as safetensors, which the expert type `checkpoint` reads on any machine."""

    class Config(Exporter.Config):
        type: Literal["safetensors"] = "safetensors"

    def export_merged(self, model: TrainedModel, folder: Path) -> str:
        """Every expert, trunk and gate; as one expert of another merge it is `{type: checkpoint, path: ...}`."""
        write_mixture(_merged(model), model.image, model.schedule, folder)
        return _with_card(model, None, folder, f"experts: [{{type: checkpoint, path: {folder}}}]")

    def export_expert(self, model: TrainedModel, expert: int, folder: Path) -> str:
        """One expert with weights of its own."""
        save_expert(model.experts[expert], folder)
        return _with_card(model, expert, folder, f"experts: [{{type: checkpoint, path: {folder}}}]")


class DiffusersExporter(Exporter):
    """Folders of diffusers: the merged model as a pipeline, one expert as UNet2DModel where it is one."""

    class Config(Exporter.Config):
        type: Literal["diffusers"] = "diffusers"

    def export_merged(self, model: TrainedModel, folder: Path) -> str:
        """A DDIMPipeline whose unet is the merged model; loading it needs diffusers and moeframe."""
        diffusers = _diffusers()
        from moeframe_pretrained.diffusers.pipeline import MergedUNet, chain_of

        gate = _merged(model).gate
        if gate is not None and gate.random:
            raise InputError(
                f"the gate '{gate.name()}' draws at random for each trajectory, which a pipeline of diffusers does not "
                "know; export it with --format safetensors, or one of its experts with --expert"
            )
        whole = Mixture(_merged(model), model.image, model.schedule)
        MergedUNet(whole, TRAINING_STEPS).save_pretrained(folder / "unet")
        scheduler = diffusers.DDIMScheduler(
            num_train_timesteps=TRAINING_STEPS,
            trained_betas=chain_of(model.schedule, model.image.levels, TRAINING_STEPS).betas,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=bool(model.sampler.config.clip),
        )
        with storage_errors_at(folder):
            scheduler.save_pretrained(folder / "scheduler")
        index = {
            "_class_name": "DDIMPipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": [PIPELINE, "MergedUNet"],
        }
        _write_json(folder / "model_index.json", index)
        load = (
            f"import {PIPELINE}\n"
            "from diffusers import DDIMPipeline\n\n"
            f'pipeline = DDIMPipeline.from_pretrained("{folder}")\n'
            f"images = pipeline(batch_size=4, num_inference_steps={model.sampler.config.steps}).images"
        )
        return _with_card(model, None, folder, load)

    def export_expert(self, model: TrainedModel, expert: int, folder: Path) -> str:
        """A UNet2DModel with its training scheduler. Raises InputError for another architecture."""
        core = model.experts[expert].core()
        if not isinstance(core, DiffusersExpert):
            raise InputError(
                f"expert {expert} is a '{core.name()}', whose layers are not those of diffusers' UNet2DModel; "
                "export it with --format safetensors, or the merged model as a pipeline, without --expert"
            )
        _diffusers()
        with storage_errors_at(folder):
            core.save_pretrained(folder)
        load = (
            "from diffusers import UNet2DModel, DDPMScheduler\n"
            f'unet = UNet2DModel.from_pretrained("{folder}", subfolder="unet")\n'
            f'scheduler = DDPMScheduler.from_pretrained("{folder}", subfolder="scheduler")'
        )
        return _with_card(model, expert, folder, load)


def _merged(model: TrainedModel) -> MergedDenoiser:
    assert isinstance(model.denoiser, MergedDenoiser)
    return model.denoiser


def _with_card(model: TrainedModel, expert: int | None, folder: Path, load: str) -> str:
    write_file(folder / "README.md", model_card(model, expert, load).encode())
    return load


def _write_json(path: Path, content: Any) -> None:
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError:
        raise UnavailableError("the format diffusers needs diffusers; pip install 'moeframe[pretrained]'") from None
    return diffusers
