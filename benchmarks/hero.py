"""The README's first picture: each expert and their merge from the same noise, next to the gate's weight over log-SNR.

    python benchmarks/hero.py        # writes results/hero.png and results/hero.json, some five minutes on two CPU cores

Trains the two experts of specs/trade_off/digits_*.yaml on one seed, merges them with `eta: auto`, and draws the first
images of sampling seed 0: nothing is selected. Runs that are finished in --runs are used again.
"""

import argparse
import json
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import moeframe
from moeframe.diffusion import to_levels
from moeframe.interfaces.sampler import last_state
from moeframe.randomness import Streams, Trajectories
from moeframe.report.drawing import COLOURS, INK, NOISE_AXIS, QUIET
from moeframe.runs.loaded import LoadedRun

ROOT = Path(__file__).resolve().parent.parent
SPECS = ROOT / "specs/trade_off"
IMAGES = 9
METRICS = "metrics=[{type: bits_per_dim}]"


def train(runs: Path) -> LoadedRun:
    """The merge of two experts of seed 0, trained where `runs` lacks them."""
    for name in ("quality", "likelihood"):
        folder = runs / f"digits_{name}"
        moeframe.run(SPECS / f"digits_{name}.yaml", overrides=["seeds=[0]", METRICS], out=folder)
    paths = [f"experts.{k}.path={runs / f'digits_{name}'}" for k, name in enumerate(("quality", "likelihood"))]
    folder = runs / "digits_merge"
    moeframe.merge(SPECS / "digits_merge.yaml", overrides=["seeds=[0]", METRICS, *paths], out=folder)
    return moeframe.load(folder)


@torch.no_grad()
def images_of(run: LoadedRun, model: moeframe.MergedDenoiser) -> torch.Tensor:
    """The first samples of sampling seed 0, (image, height, width), grey in [0, 1]."""
    items = Trajectories.numbered(Streams(0), 0, IMAGES)
    noise = items.normal(run.assembly.image.tensor_shape, "sampling/noise")
    pixels = last_state(run.sampler.trajectory(model, noise, items)).z
    levels = run.assembly.image.levels
    return to_levels(pixels, levels)[:, 0].float() / (levels - 1)


@torch.no_grad()
def weights_of(run: LoadedRun) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-SNRs, weights of both experts there)."""
    log_snr = torch.linspace(run.schedule.log_snr_min, run.schedule.log_snr_max, 1001)
    noise = Streams(0).normal((len(log_snr), *run.assembly.image.tensor_shape), "hero")
    return log_snr, run.denoiser.route(noise, log_snr).weights


def strip(axes: Axes, images: torch.Tensor, label: str, colour: str) -> None:
    """One row of images with its name on the left."""
    axes.imshow(
        torch.cat([torch.nn.functional.pad(image, (0, 2, 0, 0), value=0.0) for image in images], 1)[:, :-2],
        cmap="gray_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set_axis_off()
    axes.text(
        -1.5,
        images.shape[1] / 2 - 0.5,
        label,
        ha="right",
        va="center",
        color=colour,
        fontsize=10,
        weight="bold",
        linespacing=1.35,
    )


def draw(run: LoadedRun, bits: dict[str, float], out: Path) -> float:
    """The picture; returns η."""
    gate = run.gate
    assert gate is not None
    [eta] = gate.switches
    figure = Figure(figsize=(10, 2.9), facecolor="white")
    images = figure.add_gridspec(3, 1, left=0.15, right=0.72, top=0.97, bottom=0.03, hspace=0.14)
    rows = (
        ("expert 0", run.denoiser.alone(0), COLOURS[0]),
        ("merged", run.denoiser, INK),
        ("expert 1", run.denoiser.alone(1), COLOURS[5]),
    )
    for row, (label, model, colour) in enumerate(rows):
        named = f"{label}\n{bits[label]:.3f} bits/dim"
        strip(figure.add_subplot(images[row]), images_of(run, model), named, colour)
    axes = figure.add_axes((0.785, 0.19, 0.205, 0.68))
    log_snr, weights = weights_of(run)
    for k, colour in ((0, COLOURS[0]), (1, COLOURS[5])):
        axes.plot(log_snr, weights[:, k], color=colour, linewidth=2)
        axes.fill_between(log_snr, 0, weights[:, k], color=colour, alpha=0.12, linewidth=0)
    for k, (low, high) in enumerate(((run.schedule.log_snr_min, eta), (eta, run.schedule.log_snr_max))):
        middle, turned = (low + high) / 2, 0 if k == 0 else 90
        colour = (COLOURS[0], COLOURS[5])[k]
        axes.text(middle, 0.5, f"expert {k}", ha="center", va="center", rotation=turned, color=colour, weight="bold")
    axes.axvline(eta, color=QUIET, linewidth=0.8, linestyle=":")
    axes.text(eta, 1.06, f"η = {eta:.2f}", ha="center", color=INK, fontsize=9)
    axes.set(
        xlabel=NOISE_AXIS,
        ylabel="gate weight",
        ylim=(0, 1.03),
        yticks=[0, 0.5, 1],
        xlim=(run.schedule.log_snr_min, run.schedule.log_snr_max),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=160, metadata={"Software": None})
    return float(eta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/hero", help="where runs are kept")
    runs = parser.parse_args().runs.resolve()
    run = train(runs)
    results = ROOT / "results"
    bits = {
        name: json.loads((runs / folder / "results.json").read_text())["metrics"]["bits_per_dim"]["mean"]
        for name, folder in (
            ("expert 0", "digits_quality"),
            ("expert 1", "digits_likelihood"),
            ("merged", "digits_merge"),
        )
    }
    eta = draw(run, bits, results / "hero.png")
    facts = {
        "command": "python benchmarks/hero.py",
        "specs": [f"specs/trade_off/digits_{name}.yaml" for name in ("quality", "likelihood", "merge")],
        "training_seed": 0,
        "sampling_seed": 0,
        "images": f"numbers 0 to {IMAGES - 1}, not selected",
        "sampler": run.spec.sampler.model_dump(mode="json"),
        "eta": eta,
        "bits_per_dim": bits,
    }
    (results / "hero.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
