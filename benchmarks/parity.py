"""Images of diffusers' own pipelines against ours from the same folder and noise; the largest difference of a pixel.

    python benchmarks/parity.py          # half a minute on a CPU; writes results/merge/parity.json

Weights are random: nothing is downloaded, and the comparison is of arithmetic, not quality. `small` runs a full chain;
`ddpm-cifar10-32` has the settings of google/ddpm-cifar10-32 at full size (35.7 million weights) and takes few steps.
Pixels are in [0, 1], as diffusers returns them before rounding. Random weights that predict noise leave that range, and
clipping hides differences, so images before clipping are compared too, relative to their largest pixel.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from torch import Tensor

from moeframe.diffusion import alpha, ancestral_step
from moeframe.interfaces.component import ImageShape
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.sampling import ddim_trajectory, per_batch, predict_image
from moeframe.randomness import Streams, Trajectories
from moeframe.runs.environment import describe_environment, installed_version
from moeframe_pretrained.diffusers.expert import DiffusersExpert

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/support"))

from small_diffusers import small_network, write_pipeline

OUT = Path(__file__).resolve().parent.parent / "results/merge/parity.json"
ALLOWED = 1e-4
CIFAR10 = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
}


@dataclass(frozen=True)
class Case:
    """One network, its size, and how far it is walked."""

    name: str
    network: dict[str, Any]
    image: ImageShape
    batch: int
    steps: int
    predictions: tuple[str, ...]
    grids: tuple[str, ...] = ("both_ends", "centres")


CASES = (
    Case("small", {}, ImageShape(3, 8, 8, 256), 4, 50, ("epsilon", "sample", "v_prediction")),
    Case("ddpm-cifar10-32", CIFAR10, ImageShape(3, 32, 32, 256), 1, 3, ("epsilon",), ("both_ends",)),
)


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    cases = {}
    for case in CASES:
        network = small_network(**case.network)
        for prediction in case.predictions:
            with tempfile.TemporaryDirectory() as folder:
                write_pipeline(Path(folder), network, prediction_type=prediction, clip_sample=False)
                for found in _measure(case, Path(folder)):
                    cases[f"{case.name}, {prediction}, {found['sampler']}, {found['pixel_grid']}"] = found
                    print(case.name, prediction, found, flush=True)
        print(case.name, sum(p.numel() for p in network.parameters()), "weights")
    report = {
        "command": "python benchmarks/parity.py",
        "what": "largest difference of a pixel in [0, 1] between a pipeline of diffusers and moeframe, random weights; "
        "unclipped_relative: before clipping, over the largest pixel",
        "environment": {**describe_environment("cpu"), "diffusers": installed_version("diffusers")},
        "allowed": ALLOWED,
        "met": all(
            max(found["largest_difference"], found["unclipped_relative"]) <= ALLOWED for found in cases.values()
        ),
        "cases": cases,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    assert report["met"], "an image differs by more than is allowed"


def _measure(case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    items = Trajectories.numbered(Streams(0), 0, case.batch)
    noise = items.normal(case.image.tensor_shape, "noise")
    for sampler, pipeline_type in (("ddim", diffusers.DDIMPipeline), ("ancestral", diffusers.DDPMPipeline)):
        pipeline = pipeline_type.from_pretrained(folder, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        fresh = [items.normal(case.image.tensor_shape, "ancestral", i) for i in range(case.steps)]
        theirs = _by_diffusers(pipeline, case, [noise, *fresh])
        bar = pipeline.scheduler.alphas_cumprod.double()[pipeline.scheduler.timesteps]
        for pixel_grid in case.grids:
            config = DiffusersExpert.Config.model_validate({"path": folder, "pixel_grid": pixel_grid})
            expert = DiffusersExpert(config, image=case.image).eval()
            there = bar.log() - torch.log1p(-bar)
            ours = _by_moeframe(expert, sampler, noise, there, items)
            yield {
                "sampler": sampler,
                "pixel_grid": pixel_grid,
                "steps": case.steps,
                "images": case.batch,
                "largest_difference": _figure((ours.clamp(0, 1) - theirs.clamp(0, 1)).abs().max()),
                "unclipped_relative": _figure((ours - theirs).abs().max() / theirs.abs().max()),
                "largest_unclipped_pixel": _figure(theirs.abs().max()),
            }


def _figure(value: Tensor) -> float:
    return float(f"{float(value):.3g}")


def _by_diffusers(pipeline: Any, case: Case, draws: list[Tensor]) -> Tensor:
    """The pipeline's images before it clips them, its random draws replaced by ours."""
    given = iter(draws)

    def next_draw(*_: Any, **__: Any) -> Tensor:
        return next(given)

    scheduler, steps = pipeline.scheduler, []
    step = scheduler.step

    def recorded(*args: Any, **settings: Any) -> Any:
        steps.append(step(*args, **settings))
        return steps[-1]

    with ExitStack() as patches:
        for module in ("pipelines.ddim.pipeline_ddim", "pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm"):
            patches.enter_context(patch(f"diffusers.{module}.randn_tensor", next_draw))
        patches.enter_context(patch.object(scheduler, "step", recorded))
        pipeline(batch_size=case.batch, num_inference_steps=case.steps, output_type="pt")
    images: Tensor = steps[-1].prev_sample
    return images / 2 + 0.5


def _by_moeframe(expert: DiffusersExpert, sampler: str, noise: Tensor, there: Tensor, items: Trajectories) -> Tensor:
    """Our images, walked over the pipeline's noise levels and carried to its pixel grid."""
    levels = [float(value) - expert.grid.log_snr_shift for value in there]
    first = torch.tensor([levels[0], float(there[0])], dtype=torch.float64)
    to_ours, to_theirs = alpha(first).tolist()
    z = noise * to_ours / (expert.grid.scale * to_theirs)
    model = MergedDenoiser([expert])
    if sampler == "ddim":
        *_, last = ddim_trajectory(model, z, items, levels, clip=False)
        image = last.z
    else:
        image = _ancestral(model, z, levels, items)
    return expert.grid.scale * image / 2 + 0.5


def _ancestral(model: MergedDenoiser, z: Tensor, levels: list[float], items: Trajectories) -> Tensor:
    """AncestralSampler's walk over given levels."""
    for i, level in enumerate(levels):
        image = predict_image(model, z, level, items, clip=False).image
        if i + 1 == len(levels):
            return image
        fresh = items.normal(z.shape[1:], "ancestral", i)
        z = ancestral_step(z, image, fresh, per_batch(level, z), per_batch(levels[i + 1], z))
    raise AssertionError("a chain has a step")


if __name__ == "__main__":
    main()
