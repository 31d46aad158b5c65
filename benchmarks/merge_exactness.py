"""Merges whose answer is known: one network saved in two families, and the switch that `eta: auto` finds.

    python benchmarks/merge_exactness.py                          # a minute; writes results/merge/families.json
    python benchmarks/merge_exactness.py --run runs/digits_merge  # and results/merge/eta_auto.json

families: a network with random weights is written in its family's format and again as moeframe exports it, or wrapped
so that it predicts in another parametrisation; the merge of both, under every installed gate, is compared with the
network alone. eta_auto: the merged model of a finished run is evaluated in full for each place of the switch on a fine
grid, on the images, noise levels and noise from which `auto` decided; the least of these is compared with `auto`.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import moeframe
from moeframe.diffusion import image_from_velocity, noise_from_velocity, velocity_from_image, velocity_from_noise
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.runs.environment import describe_environment
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.schedules.linear import LinearSchedule
from moeframe_pretrained.moeframe_runs.checkpoint import CheckpointExpert
from moeframe_pretrained.moeframe_runs.mixture_folder import write_mixture

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/support"))

from official_edm import NCSNPP, write_edm
from official_vdm import write_vdm
from small_diffusers import small_network, write_flat, write_pipeline

OUT = Path(__file__).resolve().parent.parent / "results/merge"
IMAGE = ImageShape(3, 8, 8, 256)
STREAMS = Streams(5)
ALLOWED = 1e-5
GATES: dict[str, dict[str, Any]] = {
    "fixed": {"thresholds": (0.0,), "weights": ((0.3, 0.7), (0.9, 0.1))},
    "switch": {"eta": 0.5},
    "top_k": {"k": 1},
}


class Reparametrised(Expert):
    """The function of another expert, predicted as noise or image and converted back at the boundary."""

    class Config(Expert.Config):
        type: str = "reparametrised"

    def __init__(self, inner: Expert, into: str):
        super().__init__(self.Config(), image=inner.image)
        self.inner, self.into = inner, into

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        velocity = self.inner(z, log_snr)
        if self.into == "noise":
            return velocity_from_noise(noise_from_velocity(velocity, z, log_snr), z, log_snr)
        return velocity_from_image(image_from_velocity(velocity, z, log_snr), z, log_snr)


def pairs(folder: Path) -> Iterator[tuple[str, Expert, Expert]]:
    """What differs, and two experts that are one network."""
    registry = Registry.installed()

    def read(kind: str, path: Path, **settings: Any) -> Expert:
        component = registry.get(Expert, kind)
        return component(component.Config.model_validate({"type": kind, "path": path, **settings}), image=IMAGE).eval()

    def exported(expert: Expert, name: str) -> Expert:
        write_mixture(MergedDenoiser([expert]), IMAGE, LinearSchedule(LinearSchedule.Config()), folder / name)
        return CheckpointExpert(CheckpointExpert.Config(path=folder / name), image=IMAGE).eval()

    network = small_network()
    pipeline = read("diffusers", write_pipeline(folder / "pipeline", network))
    yield (
        "diffusers pipeline, safetensors / flat folder, pickled",
        pipeline,
        read("diffusers", write_flat(folder / "flat", network, safe=False)),
    )
    yield "diffusers / moeframe checkpoint", pipeline, exported(pipeline, "of diffusers")
    edm = read("edm", write_edm(folder / "edm.pkl", NCSNPP))
    yield "EDM pickle / moeframe checkpoint", edm, exported(edm, "of edm")
    vdm = read("vdm", write_vdm(folder / "vdm.flax", width=32))
    yield "VDM msgpack / moeframe checkpoint", vdm, exported(vdm, "of vdm")
    for prediction in ("velocity", "noise", "edm"):
        config = UNetExpert.Config(channels=8, prediction=prediction)
        own = stirred(lambda config=config: UNetExpert(config, image=IMAGE)).eval()
        for into in ("noise", "image"):
            yield f"unet that predicts {prediction} / the same as {into}", own, Reparametrised(own, into)


@torch.no_grad()
def families() -> dict[str, Any]:
    registry, found = Registry.installed(), {}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, one, other in pairs(Path(scratch)):
            low = max(one.log_snr_range[0], other.log_snr_range[0], -6.0)
            high = min(one.log_snr_range[1], other.log_snr_range[1], 6.0)
            z, log_snr = STREAMS.normal((16, *IMAGE.tensor_shape), "z"), torch.linspace(low, high, 16)
            items, alone = Trajectories.numbered(STREAMS, 0, 16), one(z, log_snr)
            scale = max(1.0, float(alone.abs().max()))
            found[name] = {
                "log_snr": [low, high],
                "largest_velocity": float(alone.abs().max()),
                **{
                    gate: float((model(z, log_snr, items).velocity - alone).abs().max()) / scale
                    for gate, model in merged(registry, one, other)
                },
            }
    worst = max(value for entry in found.values() for gate, value in entry.items() if gate in registry.names("gates"))
    return {
        "what": "largest difference of the merged velocity from the network alone, over the larger of 1 and the "
        "network's largest velocity; 16 noisy 3x8x8 images, float32; learned gates with random weights",
        "allowed": ALLOWED,
        "worst": worst,
        "met": worst <= ALLOWED,
        "pairs": found,
    }


def merged(registry: Registry, one: Expert, other: Expert) -> Iterator[tuple[str, MergedDenoiser]]:
    for provided in registry.components("gates"):
        component = provided.component
        assert issubclass(component, Gate)
        config = component.Config.model_validate({"type": component.name(), **GATES.get(component.name(), {})})
        gate = stirred(partial(component, config, image=IMAGE, n_experts=2))
        yield component.name(), MergedDenoiser([one, other], gate).eval()


def eta_auto(folder: Path, points: int = 121) -> dict[str, Any]:
    """`auto` against full evaluations over a grid, seed by seed."""
    found = []
    for seed in moeframe.load(folder).spec.seeds:
        run = moeframe.load(folder, seed)
        a = run.assembly
        n = min(a.spec.training.calibration_images, len(a.train))
        chosen = a.streams.permutation(len(a.train), "calibration/images")[:n]
        times, levels = a.streams.low_discrepancy(n, "calibration/times"), a.train.images(chosen).long()
        assert run.gate is not None
        (auto,) = run.gate.switches

        def bits(eta: float, run: Any = run, levels: Tensor = levels, times: Tensor = times, n: int = n) -> float:
            run.gate.switch_at((eta,))
            a = run.assembly
            items = Trajectories.numbered(a.streams, 0, n)
            bound = continuous_bound(run.denoiser, a.schedule, a.image, levels, times, items)
            return float(bound.total.double().mean())

        with torch.no_grad():
            low, high = a.schedule.log_snr_min, a.schedule.log_snr_max
            grid = torch.linspace(low, high, points, dtype=torch.float64).tolist()
            totals = [bits(eta) for eta in grid]
            least = min(totals)
            found.append(
                {
                    "seed": seed,
                    "auto": auto,
                    "bits_per_dim_at_auto": bits(auto),
                    "brute_force": grid[totals.index(least)],
                    "bits_per_dim_at_brute_force": least,
                }
            )
        print(json.dumps(found[-1]), flush=True)
    step = (high - low) / (points - 1)
    return {
        "what": f"{n} training images, one noise level and noise each; the bound of the merged model evaluated in full "
        f"at {points} places of the switch, every {step:.3f} of log-SNR, against the place that auto took without them",
        "run": str(folder),
        "grid_step": step,
        # a minimum between two points of the grid can lie within a step of either, and is never above both
        "met": all(
            one["bits_per_dim_at_auto"] <= one["bits_per_dim_at_brute_force"] + 1e-9
            or abs(one["auto"] - one["brute_force"]) <= step
            for one in found
        ),
        "seeds": found,
    }


def write(name: str, content: dict[str, Any]) -> None:
    command = f"python benchmarks/merge_exactness.py{' --run runs/digits_merge' if name == 'eta_auto' else ''}"
    report = {"command": command, "environment": describe_environment("cpu"), **content}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{name}: met {content['met']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run that switches between two experts, eta: auto")
    arguments = parser.parse_args()
    write("families", families())
    if arguments.run is not None:
        write("eta_auto", eta_auto(arguments.run))


if __name__ == "__main__":
    main()
