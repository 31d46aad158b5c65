"""Folders of diffusers that do not fit are refused with what is wrong."""

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers_experts import expert_of, normal, rewrite
from small_diffusers import small_network, write_flat, write_pipeline

from moeframe.errors import CheckpointError, DataError
from moeframe.interfaces.component import ImageShape


def edit(path: Path, **changes) -> None:
    settings = json.loads(path.read_text())
    settings.update(changes)
    path.write_text(json.dumps(settings))


NETWORK_FLAWS = [
    ({"class_embed_type": "timestep"}, CheckpointError, "class-conditional network .class_embed_type 'timestep'"),
    ({"num_class_embeds": 10}, CheckpointError, "num_class_embeds 10.; experts here see no labels: use an uncond"),
    ({"in_channels": 1}, DataError, "in_channels 1, but the run's images have 3; use a checkpoint of such images"),
    ({"out_channels": 6}, DataError, "out_channels 6, but the run's images have 3; the second half would be a learned"),
    ({"sample_size": 32}, DataError, "sample_size 32, but the run's images are 8x8; use a checkpoint of that size"),
    ({"sample_size": [8, 16]}, DataError, r"sample_size \[8, 16\], but the run's images are 8x8"),
    ({"_class_name": "UNet2DConditionModel"}, CheckpointError, "of a 'UNet2DConditionModel'; only UNet2DModel is read"),
    ({"auto_map": {"a": "b"}}, CheckpointError, "auto_map requests code of the checkpoint, which is never run"),
    ({"time_embedding_type": "fourier"}, CheckpointError, "'fourier' is of a variance-exploding network"),
    ({"time_embedding_type": "learned"}, CheckpointError, "knows integer steps only; set the expert's step: nearest"),
    ({"novelty": 1}, CheckpointError, "no UNet2DModel can be built .*'novelty'; correct it, or install the diffusers"),
    ({"norm_num_groups": 3}, CheckpointError, "no UNet2DModel can be built from .* must be divisible"),
    ({"block_out_channels": [8, 32]}, CheckpointError, r"tensors of another shape: .* and \d+ more; take it and"),
    ({"layers_per_block": 2}, CheckpointError, "does not fit the network; tensors missing: "),
]


@pytest.mark.parametrize(("changes", "error", "message"), NETWORK_FLAWS, ids=lambda value: str(value)[:40])
def test_a_network_that_does_not_fit_is_refused(tmp_path, changes, error, message):
    folder = write_flat(tmp_path, small_network())
    edit(folder / "config.json", **changes)
    with pytest.raises(error, match=message) as caught:
        expert_of(folder)
    assert str(folder) in str(caught.value)


SCHEDULER_FLAWS = [
    ({"prediction_type": "flow"}, "prediction_type 'flow' is unknown; known: epsilon, sample, v_prediction; name what"),
    ({"_class_name": "ScoreSdeVeScheduler"}, "scheduler 'ScoreSdeVeScheduler' does not say on which chain"),
    ({"beta_schedule": "steep"}, "do not define noise levels .*beta_schedule: steep.*: steep is not implemented"),
    ({"beta_end": 3.0}, r"do not define noise levels .*beta_end: 3.0.*: each beta must be in \(0, 1\]; correct"),
    ({"beta_start": 0.0}, r"beta_start: 0.0.*: each beta must be in \(0, 1\]; correct them"),
    ({"num_train_timesteps": 1}, "must be finite and fall at each of two or more steps"),
    ({"num_train_timesteps": "many"}, "do not define noise levels .*num_train_timesteps: many"),
]


@pytest.mark.parametrize(("changes", "message"), SCHEDULER_FLAWS, ids=lambda value: str(value)[:40])
def test_a_chain_that_is_unknown_is_refused(tmp_path, changes, message):
    folder = write_flat(tmp_path, small_network())
    edit(folder / "scheduler_config.json", **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        expert_of(folder)
    assert str(folder / "scheduler_config.json") in str(caught.value)


def test_a_learned_time_embedding_is_read_at_whole_steps(tmp_path):
    network = small_network(time_embedding_type="learned", num_train_timesteps=1000)
    expert = expert_of(write_flat(tmp_path, network), step="nearest")
    assert expert(normal(1, 3, 8, 8), torch.zeros(1)).isfinite().all()


class Malice:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


TENSOR_FLAWS = [
    (lambda tensors: {**tensors, "extra.weight": torch.zeros(1)}, "tensors unexpected: extra.weight; take it and"),
    (lambda tensors: dict(list(tensors.items())[1:]), "tensors missing: conv_in.weight; take it and"),
    (
        lambda tensors: {**tensors, "conv_in.bias": torch.zeros(9)},
        r"of another shape: conv_in.bias \[9\] for \[8\]; take it and",
    ),
    (lambda tensors: {**tensors, "conv_in.bias": torch.full((8,), math.nan)}, "infinite or NaN values: conv_in.bias;"),
    (lambda tensors: {**tensors, "conv_in.bias": 3}, "not a mapping from names to tensors"),
    (lambda tensors: [1, 2], "not a mapping from names to tensors"),
    (lambda tensors: Malice(), "more than tensors and reading it would run code; fetch it again, as safetensors"),
]


@pytest.mark.parametrize(("change", "message"), TENSOR_FLAWS, ids=lambda value: str(value)[:20])
def test_tensors_that_do_not_fit_are_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    folder = write_flat(tmp_path, small_network(), safe=False)
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        expert_of(folder)
    assert "diffusion_pytorch_model.bin" in str(caught.value)
    assert not Path("was-run").exists()


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_file_is_refused(tmp_path, safe, content):
    folder = write_flat(tmp_path, small_network(), safe=safe)
    path = folder / f"diffusion_pytorch_model.{'safetensors' if safe else 'bin'}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{path}: is (truncated|damaged).*fetch it again"):
        expert_of(folder)


def test_a_truncated_file_is_refused(tmp_path):
    for safe in (True, False):
        folder = write_flat(tmp_path / str(safe), small_network(), safe=safe)
        path = folder / f"diffusion_pytorch_model.{'safetensors' if safe else 'bin'}"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(
            CheckpointError, match=r"is truncated or (not a safetensors file|damaged) \(.*\); fetch it again"
        ):
            expert_of(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder; 'path' names a folder that diffusers'"):
        expert_of(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: is a file, not a folder"):
        expert_of(tmp_path / "file")
    with pytest.raises(DataError, match=r"holds no config.json; a diffusers checkpoint has unet/config.json and"):
        expert_of(tmp_path)
    folder = write_pipeline(tmp_path / "pipeline", small_network())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "model.fp16.safetensors")
    with pytest.raises(DataError, match=r"holds no .*, only config.json, model.fp16.safetensors; save it again in one"):
        expert_of(folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(DataError, match="holds no scheduler/scheduler_config.json"):
        expert_of(folder)


def test_code_of_a_checkpoint_is_refused(tmp_path):
    folder = write_pipeline(tmp_path, small_network())
    edit(folder / "model_index.json", unet=["my_unet", "MyUNet"])
    with pytest.raises(CheckpointError, match=r"its unet is \['my_unet', 'MyUNet'\].*not run, and only UNet2DModel"):
        expert_of(folder)


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_settings_that_are_no_mapping_are_refused(tmp_path, content):
    folder = write_flat(tmp_path, small_network())
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.json: is not (JSON|a JSON mapping); fetch the checkpoint again"):
        expert_of(folder)


def test_images_that_the_network_cannot_halve_are_refused(tmp_path):
    folder = write_flat(tmp_path, small_network(sample_size=None))
    with pytest.raises(
        DataError, match="halves images 1 times, and 7x8 is not divisible by 2; use another dataset size"
    ):
        expert_of(folder, ImageShape(3, 7, 8, 256))
