"""Exported models give what the run gives: read again as an expert, and in diffusers' own pipeline."""

import json
import shutil
import sys
import warnings

import pytest
import torch
import yaml
from click.testing import CliRunner
from official_edm import write_edm
from small_diffusers import small_network, write_pipeline

import moeframe
from moeframe import cli
from moeframe.diffusion import image_from_velocity, noise_from_velocity
from moeframe.errors import CheckpointError, DataError, InputError, PluginError
from moeframe.interfaces.component import ImageShape
from moeframe.runs.export import export
from moeframe.testing.rules import stirred
from moeframe_pretrained.moeframe_runs.checkpoint import CheckpointExpert
from moeframe_pretrained.moeframe_runs.mixture_folder import read_mixture, write_mixture
from moeframe_pretrained.moeframe_runs.run import RunExpert
from moeframe_pretrained.pixel_grid import PixelGrid

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tiny_text, tmp_path_factory):
    """Two trained experts and a soft gate."""
    folder = tmp_path_factory.mktemp("export")
    path = folder / "tiny.yaml"
    path.write_text(tiny_text)
    moeframe.run(path, out=folder / "run")
    loaded = moeframe.load(folder / "run")
    return folder / "run", loaded


def probe(shape=(1, 4, 4), n=5):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(2)), torch.linspace(-5, 5, n)


def as_expert(folder, image):
    return CheckpointExpert(CheckpointExpert.Config(path=folder), image=image).eval()


def test_an_exported_mixture_is_the_run_without_the_run(run, tmp_path):
    folder, loaded = run
    moved = shutil.copytree(folder, tmp_path / "moved")
    how = export(moved, tmp_path / "out", into="safetensors")
    shutil.rmtree(moved)
    assert how == f"experts: [{{type: checkpoint, path: {tmp_path / 'out'}}}]"
    (entry,) = yaml.safe_load(how)["experts"]
    again = as_expert(entry["path"], loaded.assembly.image)
    assert torch.equal(again(*probe()), loaded.denoiser(*probe()).velocity)
    mixture = read_mixture(tmp_path / "out")
    assert mixture.image == loaded.assembly.image
    assert mixture.schedule.config == loaded.spec.schedule


def test_one_exported_expert_is_that_expert(run, tmp_path):
    folder, loaded = run
    export(folder, tmp_path / "out", into="safetensors", expert=1)
    again = as_expert(tmp_path / "out", loaded.assembly.image)
    assert torch.equal(again(*probe()), loaded.denoiser.alone(1)(*probe()).velocity)
    assert "This is expert 1 alone" in (tmp_path / "out/README.md").read_text()


def merge_spec(tmp_path, experts, **changes):
    data = {
        "name": "merge",
        "device": "cpu",
        "dataset": {"type": "photo_patches", "size": 8},
        "schedule": {"type": "linear", "log_snr_min": -4, "log_snr_max": 4},
        "experts": experts,
        "gate": {"type": "fixed", "weights": [[1 / len(experts)] * len(experts)]},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 3},
        "training": {"trainable": "none"},
        "evaluation": {"samples_shown": 2, "diagnostic_images": 4},
        **changes,
    }
    path = tmp_path / "merge.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_merge_of_foreign_checkpoints_takes_their_files_with_it(tmp_path):
    unet = write_pipeline(tmp_path / "unet", small_network())
    edm = write_edm(tmp_path / "edm.pkl")
    experts = [
        {"type": "diffusers", "path": str(unet), "licence": "Apache-2.0"},
        {"type": "edm", "path": str(edm), "outside": "clamp"},
    ]
    moeframe.merge(merge_spec(tmp_path, experts), out=tmp_path / "run")
    loaded = moeframe.load(tmp_path / "run")
    z, log_snr = probe((3, 8, 8))
    expected = loaded.denoiser(z, log_snr).velocity
    export(tmp_path / "run", tmp_path / "out", into="safetensors")
    shutil.rmtree(unet)
    edm.unlink()
    again = as_expert(tmp_path / "out", loaded.assembly.image)
    assert torch.allclose(again(z, log_snr), expected, atol=1e-6)
    card = (tmp_path / "out/README.md").read_text()
    assert "licence Apache-2.0" in card
    assert "must not be used commercially**" in card


def test_a_foreign_checkpoint_that_was_trained_on_is_exported_as_it_is_now(tmp_path):
    unet = write_pipeline(tmp_path / "unet", small_network())
    spec = merge_spec(
        tmp_path,
        [{"type": "diffusers", "path": str(unet)}],
        gate=None,
        training={"steps": 2, "batch_size": 4, "warm_start": 0, "learning_rate": 0.01, "validation_images": 4},
    )
    moeframe.run(spec, out=tmp_path / "run")
    loaded = moeframe.load(tmp_path / "run")
    z, log_snr = probe((3, 8, 8))
    expected = loaded.denoiser(z, log_snr).velocity
    export(tmp_path / "run", tmp_path / "whole", into="safetensors")
    assert torch.allclose(as_expert(tmp_path / "whole", loaded.assembly.image)(z, log_snr), expected, atol=1e-6)
    export(tmp_path / "run", tmp_path / "unet_now", into="diffusers", expert=0)
    config = {"type": "diffusers", "path": tmp_path / "unet_now"}
    again = type(loaded.experts[0])(loaded.experts[0].Config(**config), image=loaded.assembly.image).eval()
    assert torch.allclose(again(z, log_snr), expected, atol=1e-6)
    from diffusers import UNet2DModel

    assert isinstance(UNet2DModel.from_pretrained(tmp_path / "unet_now/unet"), UNet2DModel)


def test_a_run_on_a_trunk_and_a_mixture_within_a_mixture_are_exported_whole(run, tiny_text, tmp_path):
    folder, _ = run
    data = {
        **yaml.safe_load(tiny_text),
        "trunk": {"type": "unet", "base": {"type": "run", "path": str(folder), "expert": 0}},
        "experts": [{"type": "lora", "copies": 2, "rank": 2}, {"type": "run", "path": str(folder)}],
        "gate": {"type": "softmax", "reads": "trunk"},
    }
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(data))
    moeframe.run(path, out=tmp_path / "run")
    loaded = moeframe.load(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", into="safetensors")
    assert "runs" not in (tmp_path / "out/mixture.json").read_text()
    again = as_expert(tmp_path / "out", loaded.assembly.image)
    assert torch.allclose(again(*probe()), loaded.denoiser(*probe()).velocity, atol=1e-6)


class Brightness(torch.nn.Module):
    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        level = z.flatten(1).mean(1)
        return torch.stack([-level, level], 1)


def test_a_classifier_goes_with_the_export_and_is_run_only_when_trusted(run, tiny_text, tmp_path):
    folder, _ = run
    classifier = tmp_path / "c.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Brightness()), classifier)
    data = {
        **yaml.safe_load(tiny_text),
        "experts": [{"type": "run", "path": str(folder), "expert": "each", "copies": 2}],
        "gate": {"type": "posterior", "classifier": str(classifier)},
        "training": {"trainable": "none"},
    }
    path = tmp_path / "posterior.yaml"
    path.write_text(yaml.safe_dump(data))
    moeframe.merge(path, out=tmp_path / "run")
    loaded = moeframe.load(tmp_path / "run")
    expected, image = loaded.denoiser(*probe()).velocity, loaded.assembly.image
    export(tmp_path / "run", tmp_path / "out", into="safetensors")
    classifier.unlink()
    with pytest.raises(CheckpointError, match=r"its gate 'posterior' runs a program .* trust_code: true"):
        as_expert(tmp_path / "out", image)
    trusted = CheckpointExpert(CheckpointExpert.Config(path=tmp_path / "out", trust_code=True), image=image).eval()
    assert torch.allclose(trusted(*probe()), expected, atol=1e-6)


def test_the_licences_of_every_part_go_with_an_average_of_foreign_checkpoints(tmp_path):
    folders = [write_pipeline(tmp_path / f"unet-{k}", small_network(k)) for k in range(2)]
    parts = [
        {"type": "diffusers", "path": str(folder), "licence": licence}
        for folder, licence in zip(folders, ("Apache-2.0", "CC BY-NC 4.0"), strict=True)
    ]
    spec = merge_spec(tmp_path, [{"type": "average", "experts": parts}], gate=None)
    moeframe.merge(spec, out=tmp_path / "run")
    loaded = moeframe.load(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", into="safetensors")
    again = as_expert(tmp_path / "out", loaded.assembly.image)
    z, log_snr = probe((3, 8, 8))
    assert torch.allclose(again(z, log_snr), loaded.denoiser(z, log_snr).velocity, atol=1e-6)
    assert again.provenance()["inner 0 licence"] == "Apache-2.0; CC BY-NC 4.0"


def test_a_random_gate_is_exported_but_is_no_expert_and_no_pipeline(run, tiny_text, tmp_path):
    data = {**yaml.safe_load(tiny_text), "gate": {"type": "random"}, "training": {"trainable": "none"}}
    path = tmp_path / "random.yaml"
    path.write_text(yaml.safe_dump(data))
    moeframe.merge(path, out=tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", into="safetensors")
    with pytest.raises(InputError, match="its gate 'random' draws at random, so the mixture cannot be an expert"):
        as_expert(tmp_path / "out", run[1].assembly.image)
    with pytest.raises(InputError, match="the gate 'random' draws at random for each trajectory, which a pipeline"):
        export(tmp_path / "run", tmp_path / "pipeline", into="diffusers")


# --- diffusers' pipeline ----------------------------------------------------------------------------------------------


def ddim_by_hand(loaded, noise, steps):
    """Deterministic DDIM on the same noise levels, in our own pixels; returns images as floats in [0, 1]."""
    scale = PixelGrid.reaching_both_ends(loaded.assembly.image.levels).scale
    times = torch.linspace(0, 1, 1000, dtype=torch.float64)
    spacing = torch.arange(1000, 0, -1000 / steps).round().long() - 1
    grid = loaded.schedule.log_snr(times)[spacing]
    there = grid - 2 * torch.log(torch.tensor(scale, dtype=torch.float64))
    state = noise.double()
    for value, level, after in zip(grid, there, [*there[1:], None], strict=True):
        log_snr = torch.full((len(noise),), float(value), dtype=torch.float64)
        # the same noisy image on our grid: alpha_ours / (scale * alpha_theirs)
        z = state * (value.sigmoid().sqrt() / (scale * level.sigmoid().sqrt()))
        velocity = loaded.denoiser(z.float(), log_snr.float()).velocity.double()
        image = (scale * image_from_velocity(velocity, z, log_snr)).clamp(-1, 1)
        eps = noise_from_velocity(velocity, z, log_snr)
        state = image if after is None else after.sigmoid().sqrt() * image + (-after).sigmoid().sqrt() * eps
    return (state / 2 + 0.5).clamp(0, 1)


@pytest.mark.filterwarnings("ignore")
def test_diffusers_own_pipeline_samples_what_the_merged_model_says(run, tmp_path):
    folder, loaded = run
    how = export(folder, tmp_path / "out", into="diffusers")
    space = {}
    exec("\n".join(how.split("\n")[:-1]), space)  # as the card says, up to the pipeline
    pipeline = space["pipeline"]
    assert type(pipeline).__module__.startswith("diffusers.")
    pipeline.set_progress_bar_config(disable=True)
    for steps in (1, 8):  # divisors of 1000: else diffusers' DDIM steps past its own grid
        generator = torch.Generator().manual_seed(4)
        images = pipeline(batch_size=3, num_inference_steps=steps, output_type="pt", generator=generator).images
        noise = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(4))
        # diffusers keeps the noise of a clipped image as predicted, as the loop does
        assert torch.allclose(images.double(), ddim_by_hand(loaded, noise, steps), atol=1e-4)
    pipeline.save_pretrained(tmp_path / "again")
    again = type(pipeline).from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    both = [
        p(batch_size=2, num_inference_steps=3, output_type="pt", generator=torch.Generator().manual_seed(1)).images
        for p in (pipeline, again)
    ]
    assert torch.equal(*both)


@pytest.mark.filterwarnings("ignore")
def test_noise_levels_and_thresholds_stay_exact_in_half_precision(run, tiny_text, tmp_path):
    data = {
        **yaml.safe_load(tiny_text),
        "experts": [{"type": "run", "path": str(run[0]), "expert": "each", "copies": 2}],
        "gate": {"type": "switch", "eta": 1.2345},
        "training": {"trainable": "none"},
    }
    path = tmp_path / "switch.yaml"
    path.write_text(yaml.safe_dump(data))
    moeframe.merge(path, out=tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", into="diffusers")
    from moeframe_pretrained.diffusers.pipeline import MergedUNet

    exact, half = (MergedUNet.from_pretrained(tmp_path / "out/unet", torch_dtype=kind) for kind in (None, torch.half))
    assert half.dtype == torch.half
    assert half.model.gate.switches == exact.model.gate.switches == (1.2345,)
    assert torch.equal(half.log_snr, exact.log_snr)
    assert half.float().log_snr.dtype == torch.float64


@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_needs_nothing_of_the_run(run, tmp_path):
    folder, _ = run
    export(folder, tmp_path / "out", into="diffusers")
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["unet"] == ["moeframe_pretrained.diffusers.pipeline", "MergedUNet"]
    assert "moeframe_pretrained.diffusers.pipeline" in sys.modules
    assert str(folder) not in "".join(p.read_text() for p in (tmp_path / "out").rglob("*.json"))
    card = (tmp_path / "out/README.md").read_text()
    assert "pipeline = DDIMPipeline.from_pretrained(" in card
    assert "| network_calls | 4 |" in card


# --- what cannot be exported or read ----------------------------------------------------------------------------------


def test_an_expert_that_is_no_unet2dmodel_is_refused_for_diffusers(run, tmp_path):
    with pytest.raises(InputError, match="expert 0 is a 'unet', whose layers are not those of diffusers' UNet2DModel"):
        export(run[0], tmp_path / "out", into="diffusers", expert=0)


def test_wrong_arguments_are_refused_and_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"full: already exists and is not empty; choose a new folder"):
        export(run[0], tmp_path / "full", into="safetensors")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match=r"unknown expert 2; 'tiny' has the experts 0 \.\. 1"):
        export(run[0], tmp_path / "out", into="safetensors", expert=2)
    with pytest.raises(PluginError, match="unknown exporter 'onnx'; installed: diffusers, safetensors"):
        export(run[0], tmp_path / "out", into="onnx")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_how_to_load(run, tmp_path):
    arguments = ["export", str(run[0]), "--format", "safetensors", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert f"experts: [{{type: checkpoint, path: {tmp_path / 'out'}}}]" in result.stdout


def test_a_damaged_mixture_folder_is_refused_with_its_file(run, tmp_path):
    _, loaded = run
    out, image = tmp_path / "out", loaded.assembly.image
    write_mixture(loaded.denoiser, image, loaded.schedule, out)
    text = (out / "mixture.json").read_text()
    other = ImageShape(3, 4, 4, 8)
    with pytest.raises(DataError, match="its mixture is for images of 1x4x4 with 8 levels, the run's are of 3x4x4"):
        read_mixture(out, other)
    (out / "mixture.json").write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(CheckpointError, match=r"mixture\.json: format 9, this moeframe reads 1; update moeframe"):
        read_mixture(out)
    (out / "mixture.json").write_text(text.replace('"softmax"', '"sofmax"'))
    with pytest.raises(PluginError, match=r"mixture\.json: unknown gate 'sofmax'; did you mean 'softmax'"):
        read_mixture(out)
    (out / "mixture.json").write_text(text.replace('"hidden": 64', '"hidden": 65'))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: does not fit the mixture: size mismatch for gate"):
        read_mixture(out)


def test_a_stirred_mixture_comes_back_bit_for_bit(run, tmp_path):
    _, loaded = run
    model = stirred(lambda: loaded.denoiser)
    write_mixture(model, loaded.assembly.image, loaded.schedule, tmp_path / "out")
    again = read_mixture(tmp_path / "out").model
    assert torch.equal(again(*probe()).velocity, model(*probe()).velocity)
    assert isinstance(RunExpert.Config(path=tmp_path), RunExpert.Config)
