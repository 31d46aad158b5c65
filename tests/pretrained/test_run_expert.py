"""Experts that moeframe trained, taken from a run or from a folder with one expert."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_diffusers import small_network, write_flat

from moeframe.assembly import build_model
from moeframe.errors import CheckpointError, DataError, InputError, PluginError, RunFolderError
from moeframe.interfaces.component import ImageShape
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe.storage import checkpoint
from moeframe.storage.checkpoint import Snapshot
from moeframe.storage.run_folder import RunFolder
from moeframe.testing import check_expert
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.experts.weight_space import AverageExpert
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.moeframe_runs.expert import CheckpointExpert, RunExpert
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert

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


@pytest.fixture(scope="module")
def run(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, write_run(folder, registry)


def expert_of(folder: Path, image: ImageShape = IMAGE, **settings) -> RunExpert:
    return RunExpert(RunExpert.Config(path=folder, **settings), image=image).eval()


def from_folder(folder: Path, image: ImageShape = IMAGE) -> CheckpointExpert:
    return CheckpointExpert(CheckpointExpert.Config(path=folder), image=image).eval()


def probe() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.linspace(-6, 6, 5)


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(("weights", "group"), [("ema", "ema"), ("raw", "model")])
@pytest.mark.parametrize("seed", [0, 3])
@torch.no_grad()
def test_an_expert_of_a_run_is_that_expert(run, number, weights, group, seed):
    folder, models = run
    expert = expert_of(folder, expert=number, weights=weights, seed=seed)
    assert torch.equal(expert(*probe()), models[seed, group].alone(number)(*probe()).velocity)


@torch.no_grad()
def test_without_settings_it_is_the_merged_model_of_the_first_seed_with_averaged_weights(run):
    folder, models = run
    assert torch.equal(expert_of(folder)(*probe()), models[0, "ema"](*probe()).velocity)


def test_its_provenance_names_the_run_the_expert_and_the_hash_of_the_file(run):
    folder, _ = run
    told = expert_of(folder, expert=1, source="our lab").provenance()
    recorded = json.loads((folder / "seed-0/checkpoints/step-00000005/state.json").read_text())
    assert told == {
        "source": "our lab",
        "licence": "your own run",
        "path": str(folder),
        "pixel_grid": "bin centres, (2 i + 1) / L - 1",
        "weights_sha256": recorded["files"]["ema"]["sha256"],
        "expert": "1",
        "weights": "ema",
    }


@torch.no_grad()
def test_copies_in_a_mixture_equal_one(run):
    folder, _ = run
    experts = [expert_of(folder, expert=2) for _ in range(3)]
    gate = UniformGate(UniformGate.Config(), image=IMAGE, n_experts=3)
    merged = MergedDenoiser(experts, gate)(*probe()).velocity
    assert torch.allclose(merged, experts[0](*probe()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", ["merged", 0])
def test_it_keeps_the_contract_of_experts(run, number):
    check_expert(RunExpert, RunExpert.Config(path=run[0], expert=number), image=IMAGE)


def test_the_range_is_that_of_the_experts_inside(tmp_path, registry):
    network = small_network(in_channels=1, out_channels=1)
    foreign = write_flat(tmp_path / "foreign", network)
    experts = [{"type": "unet", "channels": 4}, {"type": "diffusers", "path": str(foreign)}]
    write_run(tmp_path / "run", registry, experts=experts)
    own = DiffusersExpert(DiffusersExpert.Config(path=foreign), image=IMAGE)
    for number in (1, "merged"):
        expert = expert_of(tmp_path / "run", expert=number)
        assert expert.log_snr_range == own.log_snr_range
        assert own.weights_sha256 in expert.provenance().values()
    assert expert_of(tmp_path / "run", expert=0).log_snr_range == (-float("inf"), float("inf"))
    clamped = [experts[0], {**experts[1], "outside": "clamp"}]
    write_run(tmp_path / "clamped", registry, experts=clamped)
    assert expert_of(tmp_path / "clamped").log_snr_range == (-float("inf"), float("inf"))


REFUSED = [
    ({"expert": 3}, "small: has no expert 3; its experts are 0 .. 2"),
    ({"expert": -1}, "small: has no expert -1; its experts are 0 .. 2"),
    ({"seed": 1}, "small: has no seed 1; its seeds are 0, 3"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_the_run_does_not_have_is_refused(run, settings, message):
    with pytest.raises(RunFolderError, match=message):
        expert_of(run[0], **settings)


def test_images_of_another_kind_are_refused(run):
    with pytest.raises(
        CheckpointError, match=r"step-00000005: does not fit the network; tensors of another shape: .*;"
    ):
        expert_of(run[0], ImageShape(3, 8, 8, 256), expert=0)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(
        RunFolderError, match="is no run folder .no spec.yaml.; name a folder that `moeframe run` wrote"
    ):
        expert_of(tmp_path)


def test_a_run_without_checkpoint_is_refused(run, tmp_path):
    shutil.copy(run[0] / "spec.yaml", tmp_path)
    with pytest.raises(RunFolderError, match="has no checkpoint of seed 0; train it with `moeframe run` first"):
        expert_of(tmp_path, expert=0)


def test_an_altered_checkpoint_is_refused(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "copy")
    path = tmp_path / "copy/seed-0/checkpoints/step-00000005/ema.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        expert_of(tmp_path / "copy", expert=0)


def test_a_type_that_is_not_installed_is_refused(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "copy")
    spec = tmp_path / "copy/spec.yaml"
    spec.write_text(spec.read_text().replace("type: unet", "type: unett"))
    with pytest.raises(PluginError, match=f"{spec}: unknown expert 'unett'; did you mean 'unet'"):
        expert_of(tmp_path / "copy", expert=0)


def test_settings_of_another_release_are_refused(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "copy")
    spec = tmp_path / "copy/spec.yaml"
    spec.write_text(spec.read_text().replace("dropout:", "drop_out:"))
    with pytest.raises(
        CheckpointError, match="does not describe an expert of this moeframe: .*drop_out.*; use the rel"
    ):
        expert_of(tmp_path / "copy", expert=0)


def test_a_mixture_whose_gate_draws_is_no_expert(tmp_path, registry):
    write_run(tmp_path, registry, gate="random")
    with pytest.raises(InputError, match="its gate 'random' draws at random, so the mixture is no expert; name one of"):
        expert_of(tmp_path)
    expert_of(tmp_path, expert=0)


# --- checkpoint -------------------------------------------------------------------------------------------------------


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
    with pytest.raises(CheckpointError, match="model.safetensors: is truncated or no safetensors file"):
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


def test_with_seed_same_each_seed_of_a_run_takes_the_expert_of_its_own_seed(run):
    folder, models = run
    config = RunExpert.Config(path=folder, seed="same")
    for seed in (0, 3):
        expert = RunExpert(config.for_seed(seed), image=IMAGE).eval()
        assert torch.equal(expert(*probe()), models[seed, "ema"](*probe()).velocity)
    with pytest.raises(RunFolderError, match="has no seed 1; its seeds are 0, 3"):
        RunExpert(config.for_seed(1), image=IMAGE)


def test_each_gives_every_copy_the_expert_of_its_number(run, registry):
    folder, models = run
    section = {"type": "run", "path": str(folder), "expert": "each", "copies": 3, "seed": 3}
    data = {
        "name": "all",
        "dataset": {"type": "gaussian", "size": 8},
        "schedule": {"type": "linear"},
        "experts": [section],
        "gate": {"type": "uniform"},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim"},
        "training": {"trainable": "none"},
    }
    model = build_model(bind(data, registry), registry, IMAGE, Streams(0)).eval()
    for k in range(3):
        expected = models[3, "ema"].alone(k)(*probe()).velocity
        assert torch.equal(model.alone(k)(*probe()).velocity, expected)
    data |= {"experts": [{"type": "average", "experts": [section | {"copies": 2}]}], "gate": None}
    (merged,) = build_model(bind(data, registry), registry, IMAGE, Streams(0)).experts
    weights = [models[3, "ema"].experts[k].network.stem.weight for k in range(2)]
    assert torch.allclose(merged.core().network.stem.weight, sum(weights) / 2, atol=1e-6)


def test_an_expert_of_a_run_whose_experts_were_each_of_another_run_is_found(run, registry, tmp_path):
    section = {"type": "run", "path": str(run[0]), "expert": "each", "copies": 2, "seed": "same"}
    later = write_run(tmp_path / "later", registry, experts=[section])
    for number in range(2):
        expert = expert_of(tmp_path / "later", expert=number, seed=3)
        assert torch.equal(expert(*probe()), later[3, "ema"].alone(number)(*probe()).velocity)
        assert expert.provenance()["inner 0 expert"] == str(number)


def test_weights_merge_however_many_runs_the_experts_came_through(run, registry, tmp_path):
    folder, models = run
    section = {"type": "run", "path": str(folder), "expert": "each", "copies": 2}
    later = write_run(tmp_path / "later", registry, experts=[section])
    parts = (
        RunExpert.Config(path=folder, expert=0),
        RunExpert.Config(path=tmp_path / "later", expert=1),
    )
    merged = AverageExpert(AverageExpert.Config(experts=parts), image=IMAGE)
    stems = [models[0, "ema"].experts[0].network.stem, later[0, "ema"].experts[1].core().network.stem]
    assert torch.allclose(merged.core().network.stem.weight, (stems[0].weight + stems[1].weight) / 2, atol=1e-6)
