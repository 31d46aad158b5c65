"""A trained model as folders of diffusers."""

import json
from pathlib import Path
from typing import Any, Literal

from moeframe.errors import InputError, UnavailableError
from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe.storage.atomic import storage_errors_at, write_file
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.model_card import with_card
from moeframe_pretrained.moeframe_runs.mixture_folder import mixture_of

PIPELINE = "moeframe_pretrained.diffusers.pipeline"
TRAINING_STEPS = 1000


class DiffusersExporter(Exporter):
    """Folders of diffusers: the merged model as a pipeline, one expert as UNet2DModel where it is one."""

    class Config(Exporter.Config):
        type: Literal["diffusers"] = "diffusers"

    def export_merged(self, model: TrainedModel, folder: Path) -> str:
        """A DDIMPipeline whose unet is the merged model; loading it needs diffusers and moeframe."""
        diffusers = _diffusers()
        from moeframe_pretrained.diffusers.pipeline import MergedUNet, chain_of

        mixture = mixture_of(model)
        gate = mixture.model.gate
        if gate is not None and gate.random:
            raise InputError(
                f"the gate '{gate.name()}' draws at random for each trajectory, which a pipeline of diffusers does not "
                "know; export it with --format safetensors, or one of its experts with --expert"
            )
        MergedUNet(mixture, TRAINING_STEPS).save_pretrained(folder / "unet")
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
        return with_card(model, None, folder, load)

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
        return with_card(model, expert, folder, load)


def _write_json(path: Path, content: Any) -> None:
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError:
        raise UnavailableError("the format diffusers needs diffusers; pip install 'moeframe[pretrained]'") from None
    return diffusers
