"""Diagnostics of one seed for the report: pictures, and gate and experts over noise levels and slices."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import Assembly
from moeframe.diffusion import add_noise, bits_per_dim, diffusion_nats, velocity_of
from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.bound import Bound
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.probe import require_valid
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.routing import profile_routing
from moeframe.randomness import Trajectories
from moeframe.shapes import PerItem
from moeframe.storage.atomic import write_file
from moeframe.storage.images import write_grid
from moeframe.storage.sample_store import Samples

RECONSTRUCTION_LOG_SNR = 0.0
PAIRS = 12
TRAJECTORIES = 6
STATES = 10
BOUND_REPEATS = 4
CURVE_POINTS = 21
BOUND_POINTS = 25
"""Noise levels of the bound's curve, evenly spaced in log-SNR, ends included."""


def write_diagnostics(folder: Path, assembly: Assembly, evaluation: ModelEvaluation) -> None:
    """Write samples.png, trajectory.png, reconstructions.png and diagnostics.json into the seed's folder."""
    image = assembly.image
    scale = max(1, 64 // image.width)
    n_shown = assembly.spec.evaluation.samples_shown
    samples = evaluation.shown_samples(n_shown)
    write_grid(folder / "samples.png", samples.levels, image.levels, 16, scale)
    shown = _write_trajectories(folder / "trajectory.png", evaluation, scale)
    brought_back = evaluation.shown_reconstructions(RECONSTRUCTION_LOG_SNR, PAIRS)
    originals = torch.cat([levels for _, levels in evaluation.test_batches(len(brought_back.levels))])
    write_grid(
        folder / "reconstructions.png",
        torch.cat([originals, brought_back.levels.long()]),
        image.levels,
        len(originals),
        scale,
    )
    facts: dict[str, Any] = {
        "not_finite": {"samples": samples.broken, "reconstructions": brought_back.broken},
        "trajectory_log_snr": shown,
        "reconstruction_log_snr": RECONSTRUCTION_LOG_SNR,
    }
    why_no_bound = _why_no_bound(assembly, evaluation)
    image_bits = None
    if why_no_bound is None:
        facts["bound_by_log_snr"] = _bound_by_log_snr(assembly, evaluation)
        image_bits = _bounds(assembly, evaluation, evaluation.model)
        facts["image_bits"] = image_bits.tolist()  # the same images and noise in every run of a seed
    else:
        facts["no_bound"] = why_no_bound
    if assembly.model.gate is not None:
        facts |= _routing(assembly, evaluation)
    if assembly.slices.slicer is not None:
        facts |= _slices(assembly, evaluation, image_bits)
    write_file(folder / "diagnostics.json", json.dumps(facts, indent=1, allow_nan=False).encode())


def _write_trajectories(path: Path, evaluation: ModelEvaluation, scale: int) -> list[float]:
    """Draw one row per sample from noise to image; return the log-SNRs shown before the final image."""
    states = list(evaluation.trajectory(0, TRAJECTORIES))
    # a set, because a sampler with few steps has fewer states than columns
    chosen = [states[i] for i in sorted({round(i * (len(states) - 1) / (STATES - 1)) for i in range(STATES)})]
    columns = [Samples.of_pixels(state.z, evaluation.image.levels).levels for state in chosen]
    rows = torch.stack(columns, 1).flatten(0, 1)
    write_grid(path, rows, evaluation.image.levels, len(chosen), scale)
    return [state.log_snr for state in chosen[:-1]]


def _routing(assembly: Assembly, evaluation: ModelEvaluation) -> dict[str, Any]:
    numbers = assembly.test_numbers(assembly.spec.evaluation.diagnostic_images)
    profile = profile_routing(
        evaluation.model,
        assembly.schedule,
        assembly.image,
        assembly.test.images(numbers),
        assembly.slices.test[numbers],
        Trajectories.numbered(assembly.streams, 0, len(numbers)),
        CURVE_POINTS,
    )
    facts: dict[str, Any] = {
        "gate_weights": {"log_snr": profile.log_snr, "mean": profile.mean_weights.tolist()},
        "expert_usage": profile.usage,
    }
    if evaluation.gate is not None and evaluation.gate.switches:
        facts["switches"] = list(evaluation.gate.switches)
    if assembly.slices.slicer is not None:
        facts["router_accuracy"] = {
            "log_snr": profile.log_snr,
            "accuracy": profile.accuracy.tolist(),
            "per_slice": [[_or_none(hit) for hit in row] for row in profile.accuracy_by_slice.tolist()],
            "chance": 1 / assembly.slices.n_slices,
        }
    return facts


def _or_none(value: float) -> float | None:
    """Replace NaN, the accuracy of a slice without test images, by None: JSON has no NaN."""
    return None if math.isnan(value) else value


def _why_no_bound(assembly: Assembly, evaluation: ModelEvaluation) -> str | None:
    """Probe the model; return why its figure would not bound a likelihood, or None if it does."""
    n_items = BOUND_REPEATS * min(assembly.spec.evaluation.diagnostic_images, len(assembly.test))
    try:
        require_valid(
            evaluation.model,
            assembly.image,
            assembly.schedule,
            assembly.streams,
            assembly.device,
            gate=evaluation.gate,
            n_items=n_items,
        )
    except UnavailableError as reason:
        return str(reason)
    return None


def _slices(assembly: Assembly, evaluation: ModelEvaluation, merged: PerItem | None) -> dict[str, Any]:
    """Measure bits/dim of each expert alone and of the merge on the test images of each slice, with the same noise."""
    slices = assembly.slices
    about = {
        "names": slices.names,
        "train": slices.train_sizes,
        "test": slices.test_sizes,
        "cautions": slices.cautions,
    }
    if merged is None:
        return {"slices": about}
    own = slices.test[assembly.test_numbers(len(merged))]
    present = [s for s in range(slices.n_slices) if bool((own == s).any())]

    def by_slice(bits: PerItem) -> list[float | None]:
        return [float(bits[own == s].mean()) if s in present else None for s in range(slices.n_slices)]

    return {
        "slices": about,
        "expert_slice_bits": {
            "matrix": [
                by_slice(_bounds(assembly, evaluation, evaluation.model.alone(k)))
                if _covers(evaluation.model.range_of(k), assembly.schedule)
                else [None] * slices.n_slices  # no bound over the full range of noise
                for k in range(len(evaluation.experts))
            ],
            "merged": by_slice(merged),
            "n": [int((own == s).sum()) for s in range(slices.n_slices)],
        },
        "image_slices": own.tolist(),
    }


def _covers(valid: tuple[float, float], schedule: NoiseSchedule) -> bool:
    return valid[0] <= schedule.log_snr_min and schedule.log_snr_max <= valid[1]


def _bounds(assembly: Assembly, evaluation: ModelEvaluation, model: MergedDenoiser) -> PerItem:
    """Return the bound of each of some test images, bits/dim, averaged over a few draws."""
    n = min(assembly.spec.evaluation.diagnostic_images, len(assembly.test))
    repeats = []
    for repeat in range(BOUND_REPEATS):
        # neighbouring images may share a slice and should not get neighbouring noise levels
        order = assembly.streams.permutation(n, "diagnostics/order", repeat)
        times = assembly.streams.low_discrepancy(n, "diagnostics/times", repeat)[order].to(assembly.device)
        parts = [
            continuous_bound(
                model.eval(),
                assembly.schedule,
                assembly.image,
                levels.to(assembly.device),
                times[start : start + len(levels)],
                Trajectories.numbered(assembly.streams, repeat * n + start, repeat * n + start + len(levels)),
            )
            for start, levels in evaluation.test_batches(n)
        ]
        repeats.append(Bound.concatenate(parts).total)
    return torch.stack(repeats).mean(0).cpu()


@torch.no_grad()
def _bound_by_log_snr(assembly: Assembly, evaluation: ModelEvaluation) -> dict[str, Any]:
    """Return ½ E‖ε - ε̂‖² / (D ln 2) over log-SNR, the bits/dim per noise level, for the merge and each expert."""
    numbers = assembly.test_numbers(min(assembly.spec.evaluation.diagnostic_images, evaluation.batch_size))
    n = len(numbers)
    items = Trajectories.numbered(assembly.streams, 0, n)
    x = evaluation.pixels(assembly.test.images(numbers))
    noise = items.normal(assembly.image.tensor_shape, "diagnostics/noise").to(x)
    ends = assembly.schedule.log_snr_min, assembly.schedule.log_snr_max
    grid = torch.linspace(*ends, BOUND_POINTS, dtype=torch.float64).tolist()

    def curve(model: MergedDenoiser, valid: tuple[float, float] = (-math.inf, math.inf)) -> list[float | None]:
        values: list[float | None] = []
        for value in grid:
            if not valid[0] <= value <= valid[1]:
                values.append(None)
                continue
            log_snr = torch.full((n,), value, device=x.device)
            z = add_noise(x, noise, log_snr)
            predicted = model(z, log_snr, items).velocity
            nats = diffusion_nats(velocity_of(x, noise, log_snr), predicted, log_snr)
            values.append(float(bits_per_dim(nats, assembly.image.n_dims).mean()))
        return values

    model = evaluation.model
    n_alone = len(evaluation.experts) if evaluation.gate else 0
    return {
        "log_snr": grid,
        "merged": curve(evaluation.model),
        "experts": [curve(model.alone(k).eval(), model.range_of(k)) for k in range(n_alone)],
        "unit": "bits/dim per unit log-SNR",
        "images": n,
    }
