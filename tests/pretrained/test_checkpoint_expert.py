"""An expert from a folder that moeframe exported."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_diffusers import small_network, write_flat
from small_runs import IMAGE, expert_of, probe, write_run

from moeframe.errors import CheckpointError, DataError, InputError, PluginError
from moeframe.interfaces.component import ImageShape
from moeframe.testing import check_expert
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.moeframe_runs.checkpoint import CheckpointExpert
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert


@pytest.fixture(scope="module")
def run(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, write_run(folder, registry)


def from_folder(folder: Path, image: ImageShape = IMAGE) -> CheckpointExpert:
    return CheckpointExpert(CheckpointExpert.Config(path=folder), image=image).eval()


@pytest.fixture
def saved(run, tmp_path) -> Path:
    return save_expert(expert_of(run[0], expert=2), tmp_path / "moved")


@torch.no_grad()
def test_an_expert_that_was_saved_is_the_same_expert(run, saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((saved / "config.json").read_text())["type"] == "unet"
    expert = from_folder(saved)
    assert torch.equal(expert(*probe()), run[1][0, "ema"].alone(2)(*probe()).velocity)
    assert expert.provenance()["weights_sha256"] == expert.weights_sha256
    assert len(expert.weights_sha256) == 64


@torch.no_grad()
def test_saving_what_was_read_writes_the_same_weights(run, saved, tmp_path):
    again = save_expert(from_folder(saved), tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()
    plain = UNetExpert(UNetExpert.Config(channels=4, copies=3), image=IMAGE)
    folder = save_expert(plain, tmp_path / "plain")
    assert json.loads((folder / "config.json").read_text())["copies"] == 1
    assert torch.equal(from_folder(folder)(*probe()), plain.eval()(*probe()))


def test_a_saved_expert_keeps_the_contract_of_experts(run, tmp_path):
    folder = save_expert(expert_of(run[0], expert=0), tmp_path)
    check_expert(CheckpointExpert, CheckpointExpert.Config(path=folder), image=IMAGE)


def test_what_is_not_one_expert_is_not_saved(run, tmp_path):
    with pytest.raises(InputError, match="holds a mixture of 3, or an adapter on its trunk, and no single expert"):
        save_expert(expert_of(run[0]), tmp_path / "out")
    foreign = write_flat(tmp_path / "foreign", small_network(in_channels=1, out_channels=1))
    expert = DiffusersExpert(DiffusersExpert.Config(path=foreign), image=IMAGE)
    with pytest.raises(InputError, match="of type 'diffusers' is read from .*foreign; move that instead of saving it"):
        save_expert(expert, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_expert_is_refused_for_other_images(saved):
    for other, words in ((ImageShape(1, 8, 8, 256), "1x8x8 with 256"), (ImageShape(1, 16, 16, 16), "1x16x16 with 16")):
        with pytest.raises(
            DataError, match=f"for images of 1x8x8 with 16 levels, the run's are of {words} levels; use"
        ):
            from_folder(saved, other)


def test_a_folder_without_its_files_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no model.safetensors; 'path' names a folder that save_expert wrote"):
        from_folder(saved)


@pytest.mark.parametrize("settings", ["[]", "{}", "3", '{"type": 7}', '{"type": "unet", "width": 3}'])
def test_settings_that_describe_no_expert_are_refused(saved, settings):
    (saved / "config.json").write_text(settings)
    with pytest.raises(
        (CheckpointError, PluginError), match="config.json: (does not describe an expert|unknown expert|is not a J)"
    ):
        from_folder(saved)


def test_damaged_files_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="model.safetensors: is truncated or not a safetensors file"):
        from_folder(saved)
    tensors = safetensors.torch.load(whole)
    name = sorted(tensors)[0]
    safetensors.torch.save_file({**tensors, name: torch.full_like(tensors[name], torch.inf)}, path)
    with pytest.raises(CheckpointError, match=f"infinite or NaN values: {name}"):
        from_folder(saved)
    safetensors.torch.save_file({**tensors, "more": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not fit the network; tensors unexpected: more; use it with images"):
        from_folder(saved)
    path.write_bytes(whole)
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json: is not JSON; fetch the checkpoint again"):
        from_folder(saved)
