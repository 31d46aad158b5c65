"""A UNet2DModel of diffusers as an expert gives the numbers of diffusers."""

import math
import socket
from typing import ClassVar, Literal

import pytest
import torch
from diffusers_experts import IMAGE, expert_of, normal, rewrite
from small_diffusers import small_network, write_flat, write_pipeline

from moeframe.diffusion import alpha, per_image, to_levels, to_pixels, velocity_from_image
from moeframe.errors import RangeError
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.sampling import ddim_trajectory
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import check_expert
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_builtin.samplers.ancestral import AncestralSampler
from moeframe_pretrained.diffusers.expert import DiffusersExpert

SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": [0.01 * (i + 1) for i in range(40)], "num_train_timesteps": 40},
}


def log_snrs(scheduler) -> torch.Tensor:
    """λ of each step on the network's own grid, float64."""
    bar = scheduler.alphas_cumprod.double()
    return bar.log() - torch.log1p(-bar)


# --- the same numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("grid", ["centres", "both_ends"])
@torch.no_grad()
def test_velocity_is_what_the_scheduler_of_diffusers_makes_of_the_output(tmp_path, prediction, grid):
    from diffusers import DDPMScheduler

    network = small_network()
    expert = expert_of(write_flat(tmp_path, network, prediction_type=prediction), pixel_grid=grid)
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # near t = 0 and T what it divides by is small
    scheduler.set_timesteps(1000)
    scale = 256 / 255 if grid == "both_ends" else 1.0
    for t in (0, 1, 37, 500, 900, 999):
        there = log_snrs(scheduler)[t].repeat(4)
        ours = there + 2 * math.log(scale)  # the same noisy image, seen with 1/scale of the noise
        theirs = normal(4, 3, 8, 8, seed=t).double()
        z = theirs * per_image(alpha(ours) / (scale * alpha(there)), theirs)
        output = network(theirs.float(), t).sample.double()
        image = scheduler.step(output, t, theirs).pred_original_sample / scale
        expected = velocity_from_image(image, z, ours)
        velocity = expert(z.float(), ours.float())
        # relative where a network of random weights makes a velocity of a hundred, as its 1/α or 1/σ goes
        assert float((velocity - expected).abs().max() / expected.abs().max().clamp(min=1)) < 1e-5, t


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_noise_schedule_gives_its_own_range(tmp_path, name):
    from diffusers import DDPMScheduler

    expert = expert_of(write_flat(tmp_path, small_network(), **SCHEDULES[name]), pixel_grid="centres")
    expected = log_snrs(DDPMScheduler(**SCHEDULES[name]))
    assert expert.log_snr_range == (float(expected[-1]), float(expected[0]))
    shifted = expert_of(tmp_path, pixel_grid="both_ends").log_snr_range
    assert shifted[0] == pytest.approx(float(expected[-1]) + 2 * math.log(256 / 255), abs=1e-9)


def test_steps_are_found_back_and_interpolated_between(tmp_path):
    expert = expert_of(write_flat(tmp_path, small_network()))
    table = expert.steps.log_snrs
    assert torch.allclose(expert.steps.step(table, "interpolated"), torch.arange(1000.0).double(), atol=1e-9)
    between = 0.75 * table[:-1] + 0.25 * table[1:]
    assert torch.allclose(expert.steps.step(between, "interpolated"), torch.arange(999.0).double() + 0.25, atol=1e-9)
    assert torch.equal(expert.steps.step(between, "nearest"), torch.arange(999.0).double())


@torch.no_grad()
def test_fractional_steps_lie_between_whole_ones_and_nearest_takes_a_whole_one(tmp_path):
    network = small_network()
    folder = write_flat(tmp_path, network, prediction_type="v_prediction")
    smooth, whole = (expert_of(folder, pixel_grid="centres", step=step) for step in ("interpolated", "nearest"))
    table, z = smooth.steps.log_snrs, normal(2, 3, 8, 8)
    at = (0.7 * table[400] + 0.3 * table[401]).repeat(2)
    assert torch.allclose(whole(z, at), network(z, 400).sample, atol=1e-6)
    assert torch.allclose(smooth(z, at), network(z, torch.tensor(400.3)).sample, atol=1e-5)
    assert not torch.allclose(smooth(z, at), whole(z, at), atol=1e-4)


@torch.no_grad()
def test_folders_that_predict_noise_image_and_velocity_agree_where_their_outputs_mean_the_same(tmp_path):
    """One network read three ways: converting each output by the definitions gives back the same network output."""
    network = small_network()
    z, log_snr = normal(6, 3, 8, 8), torch.linspace(-3, 5, 6)
    outputs = []
    for prediction in ("epsilon", "sample", "v_prediction"):
        folder = write_flat(tmp_path / prediction, network, prediction_type=prediction)
        velocity = expert_of(folder, pixel_grid="centres")(z, log_snr)
        a, s = (per_image(values, z) for values in (alpha(log_snr), torch.sigmoid(-log_snr).sqrt()))
        outputs.append({"epsilon": s * z + a * velocity, "sample": a * z - s * velocity}.get(prediction, velocity))
    for output in outputs[1:]:
        assert torch.allclose(output, outputs[0], atol=1e-5)


class TableSchedule(NoiseSchedule):
    """λ at evenly spaced times from a list, noisiest last."""

    TABLE: ClassVar[list[float]] = []

    class Config(NoiseSchedule.Config):
        type: Literal["table"] = "table"

    def log_snr(self, times):
        return torch.tensor(self.TABLE, dtype=torch.float64)[(times * (len(self.TABLE) - 1)).round().long()].to(times)


def starting_noise(expert: DiffusersExpert, theirs: torch.Tensor, there: float) -> torch.Tensor:
    """Our z for their starting noise."""
    ours = torch.tensor([there - expert.grid.log_snr_shift], dtype=torch.float64)
    factor = alpha(ours) / (expert.grid.scale * alpha(ours + expert.grid.log_snr_shift))
    return theirs * float(factor)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("grid", "clip"), [("both_ends", False), ("centres", False), ("centres", True)])
@torch.no_grad()
def test_ddim_makes_the_images_of_ddim_pipeline(tmp_path, prediction, grid, clip):
    from diffusers import DDIMPipeline

    folder = write_pipeline(tmp_path, small_network(), prediction_type=prediction, clip_sample=clip)
    pipeline = DDIMPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(5)
    # ours takes the noise that goes with the clipped image, which theirs calls use_clipped_model_output
    expected = pipeline(
        batch_size=2, generator=noise, num_inference_steps=8, output_type="pt", use_clipped_model_output=True
    ).images
    expert = expert_of(folder, pixel_grid=grid)
    there = log_snrs(pipeline.scheduler)[pipeline.scheduler.timesteps]
    z = starting_noise(expert, normal(2, 3, 8, 8, seed=5), float(there[0]))
    levels = [float(value) - expert.grid.log_snr_shift for value in there]
    *_, last = ddim_trajectory(MergedDenoiser([expert]), z, Trajectories.numbered(Streams(0), 0, 2), levels, clip=clip)
    images = (expert.grid.scale * last.z / 2 + 0.5).clamp(0, 1)
    assert float((images - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.05  # not all black or white


@pytest.mark.parametrize(("grid", "clip"), [("both_ends", False), ("centres", True)])
@torch.no_grad()
def test_ancestral_makes_the_images_of_ddpm_pipeline_from_the_same_draws(tmp_path, monkeypatch, grid, clip):
    from diffusers import DDPMPipeline

    folder = write_pipeline(tmp_path, small_network(), clip_sample=clip, variance_type="fixed_small")
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    items, start = Trajectories.numbered(Streams(0), 0, 2), normal(2, 3, 8, 8, seed=5)
    draws = iter([start, *(items.normal((3, 8, 8), "ancestral", i) for i in range(8))])
    for module in ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", lambda *args, **kwargs: next(draws))
    expected = pipeline(batch_size=2, num_inference_steps=8, output_type="pt").images
    expert = expert_of(folder, pixel_grid=grid)
    there = log_snrs(pipeline.scheduler)[pipeline.scheduler.timesteps]
    levels = [float(value) - expert.grid.log_snr_shift for value in there]
    monkeypatch.setattr(TableSchedule, "TABLE", levels[::-1])
    sampler = AncestralSampler(
        AncestralSampler.Config(steps=8, clip=clip), schedule=TableSchedule(TableSchedule.Config())
    )
    *_, last = sampler.trajectory(MergedDenoiser([expert]), starting_noise(expert, start, float(there[0])), items)
    images = (expert.grid.scale * last.z / 2 + 0.5).clamp(0, 1)
    assert float((images - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.05  # not all black or white


# --- reading ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_pipeline_flat_safetensors_and_bin_folders_are_one_expert(tmp_path):
    network, z, log_snr = small_network(), normal(3, 3, 8, 8), torch.tensor([-2.0, 0.0, 3.0])
    folders = [
        write_pipeline(tmp_path / "pipeline", network),
        write_flat(tmp_path / "safe", network),
        write_flat(tmp_path / "bin", network, safe=False),
    ]
    assert (folders[2] / "diffusion_pytorch_model.bin").exists()
    experts = [expert_of(folder) for folder in folders]
    for expert in experts[1:]:
        assert torch.equal(expert(z, log_snr), experts[0](z, log_snr))
    assert experts[0].weights_sha256 == experts[1].weights_sha256 != experts[2].weights_sha256
    assert len(experts[2].provenance()["weights_sha256"]) == 64


@torch.no_grad()
def test_attention_names_of_old_checkpoints_are_read_as_diffusers_reads_them(tmp_path):
    from diffusers import UNet2DModel

    folder = write_flat(tmp_path, small_network(), safe=False, prediction_type="v_prediction")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def aged(name: str) -> str:
        for new, past in old.items():
            name = name.replace(new, past)
        return name

    rewrite(folder, lambda tensors: {aged(name): tensor for name, tensor in tensors.items()})
    assert any(".proj_attn." in name for name in torch.load(folder / "diffusion_pytorch_model.bin", weights_only=True))
    network = UNet2DModel.from_pretrained(folder, local_files_only=True, use_safetensors=False).eval()
    expert, z = expert_of(folder, pixel_grid="centres"), normal(2, 3, 8, 8)
    assert torch.allclose(expert(z, expert.steps.log_snrs[[300, 300]]), network(z, 300).sample, atol=1e-6)


@torch.no_grad()
def test_half_precision_weights_are_read_into_single_precision(tmp_path):
    folder = write_flat(tmp_path, small_network(), safe=False)
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    assert {value.dtype for value in expert_of(folder).state_dict().values()} == {torch.float32}


def test_the_network_is_never_asked(tmp_path, monkeypatch):
    folder = write_pipeline(tmp_path, small_network())

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    expert_of(folder)


@torch.no_grad()
def test_a_chain_with_zero_terminal_snr_is_read_without_its_last_step(tmp_path):
    from diffusers import DDPMScheduler

    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    folder = write_flat(tmp_path, small_network(), **settings)
    expert = expert_of(folder, pixel_grid="centres")
    table = log_snrs(DDPMScheduler(**settings))
    assert table[-1] == -math.inf
    assert expert.log_snr_range[0] == float(table[-2])


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("step", ["interpolated", "nearest"])
def test_it_keeps_the_contract_of_experts(tmp_path, prediction, step):
    # a mild chain: 1/α or 1/σ times float32's rounding is more than the contract's tolerance at the ends of DDPM's
    mild = {"beta_start": 0.01, "beta_end": 0.01, "num_train_timesteps": 200}
    folder = write_flat(tmp_path, small_network(), prediction_type=prediction, **mild)
    check_expert(DiffusersExpert, DiffusersExpert.Config(path=folder, step=step), image=IMAGE)


@torch.no_grad()
def test_copies_in_a_mixture_equal_one(tmp_path):
    folder = write_flat(tmp_path, small_network())
    experts = [expert_of(folder) for _ in range(3)]
    gate = UniformGate(UniformGate.Config(), image=IMAGE, n_experts=3)
    z, log_snr = normal(4, 3, 8, 8), torch.linspace(-5, 5, 4)
    merged = MergedDenoiser(experts, gate)(z, log_snr).velocity
    assert torch.allclose(merged, experts[0](z, log_snr), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_double_precision_keeps_its_type_and_agrees_with_single(tmp_path):
    expert = expert_of(write_flat(tmp_path, small_network(), prediction_type="v_prediction"))
    z, log_snr = normal(3, 3, 8, 8), torch.linspace(-4, 4, 3)
    double = expert(z.double(), log_snr.double())
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), expert(z, log_snr), atol=1e-5)


def test_outside_its_chain_it_is_an_error_unless_it_clamps(tmp_path):
    folder = write_flat(tmp_path, small_network())
    z, beyond = normal(1, 3, 8, 8), torch.tensor([12.0])
    with pytest.raises(RangeError, match=r"expert 0 \(diffusers\) is valid for log-SNR -10\.\d+ \.\. 9\.\d+"):
        MergedDenoiser([expert_of(folder)])(z, beyond)
    assert MergedDenoiser([expert_of(folder, outside="clamp")])(z, beyond).velocity.isfinite().all()


def test_a_level_is_the_same_level_on_both_grids(tmp_path):
    expert = expert_of(write_flat(tmp_path, small_network()))
    levels = torch.arange(256).view(1, 1, 16, 16)
    theirs = levels / 127.5 - 1
    assert torch.allclose(to_pixels(levels, 256) * expert.grid.scale, theirs, atol=1e-6)
    assert torch.equal(to_levels(theirs / expert.grid.scale, 256), levels)
