"""An expert of a moeframe run, or its mixture, as an expert of another merge."""

import json
import shutil

import pytest
import torch
from small_diffusers import small_network, write_flat
from small_runs import IMAGE, expert_of, probe, write_run

from moeframe.assembly import build_model
from moeframe.errors import CheckpointError, InputError, PluginError, RunFolderError
from moeframe.interfaces.component import ImageShape
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe.testing import check_expert
from moeframe_builtin.experts.average import AverageExpert
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_pretrained.diffusers.expert import DiffusersExpert
from moeframe_pretrained.moeframe_runs.run import RunExpert


@pytest.fixture(scope="module")
def run(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, write_run(folder, registry)


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
        RunFolderError, match="not a run folder .spec.yaml not found.; name a folder that `moeframe run` wrote"
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
    with pytest.raises(InputError, match="its gate 'random' draws at random, so the mixture cannot be an expert; name"):
        expert_of(tmp_path)
    expert_of(tmp_path, expert=0)


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
