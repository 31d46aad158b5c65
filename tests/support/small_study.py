"""Little studies: a file, and a folder as its runs would leave it, with figures of our choice and six seeds."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from moeframe.plugin.registry import Registry
from moeframe.studies.study_file import load_study

STUDY = """\
name: little
spec: tiny.yaml
seeds: [0, 3]
baseline: soft
set:
  training.warm_start: 0.5
  slicer: {type: color_variance}
  metrics: [{type: bits_per_dim, repeats: 1}, {type: parameters}, {type: latency, batch_sizes: [], repeats: 2}]
variants:
  soft: {title: soft gate}
  sparse: {set: {gate: {type: top_k, k: 1, width: 4}}}
  cut: {weights_of: soft, set: {gate: {type: top_k, k: 1, width: 4}}}
  again: {title: the same as soft}
  switch:
    title: soft for noise, sparse for the rest
    runs_of: {experts.0.path: soft, experts.1.path: sparse}
    set:
      slicer: null
      experts: [{type: run, seed: same}, {type: run, seed: same}]
      gate: {type: switch, eta: 0.0}
      training.trainable: none
      training.steps: 0
"""

SEEDS = range(6)
LOG_SNR = [-8.0, -4.0, 0.0, 4.0, 8.0]
FIGURES = {  # bits/dim, Fréchet distance, parameters, milliseconds
    "A": (2.0, 20.0, 1000.0, 1.0),
    "B": (1.9, 20.0, 4000.0, 4.0),
    "C": (2.1, 25.0, 4000.0, 2.0),
    "D": (1.9, 19.9, 4000.0, 4.1),
}
ROLES = {"bits_per_dim": "likelihood", "frechet": "quality", "parameters": "cost"}
TITLES = {"A": "A: single expert", "B": "B: K = 4, soft gate", "C": "C: top-2 & more <cut>", "D": "D: slices"}


def study_of(path):
    return load_study(path, Registry.installed())


def changed(path, **changes):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))
    return path


def write_study_folder(root: Path, *, failed: tuple[str, int] | None = ("C", 5)) -> Path:
    """Write it; the run of `failed` died. B has fewer bits than A above log-SNR 0 and on the slice `light` alone."""
    rows = [
        {
            "name": name,
            "title": TITLES[name],
            "same_as": None,
            "weights_of": None,
            "runs_of": [],
            "spec_hash": "0",
            "training_calls": 6400 * (1 if name == "A" else 4),
            "joint_calls": 1 if name == "A" else 4,
            "warm_start_steps": 0,
            "n_experts": 1 if name == "A" else 4,
            "batch_size": 64,
        }
        for name in FIGURES
    ]
    facts = {"schema_version": 2, "name": "little", "seeds": list(SEEDS), "baseline": "A", "dataset": "digits"}
    root.mkdir(parents=True)
    (root / "study.json").write_text(json.dumps({**facts, "variants": rows}))
    for number, name in enumerate(FIGURES):
        for seed in SEEDS:
            folder = root / f"runs/{name}/{seed}"
            folder.mkdir(parents=True)
            if (name, seed) == failed:
                (folder.parent / f"{seed}.failure.json").write_text('{"cause": "step 7: loss is NaN"}')
            else:
                _write_run(folder, name, seed, np.random.default_rng([number, seed]).normal(size=2))
    return root


def row(table, name):
    return next(row for row in table.rows if row.name == name)


def spoiled(tmp_path, path, change):
    """The study again, a JSON file of it changed."""
    folder = write_study_folder(tmp_path / "spoiled", failed=None)
    data = json.loads((folder / path).read_text())
    change(data)
    (folder / path).write_text(json.dumps(data))
    return folder


def _write_run(folder: Path, name: str, seed: int, luck: np.ndarray) -> None:
    bits, frechet, parameters, milliseconds = FIGURES[name]
    level = 0.1 * seed  # of the seed, the same for all: pairs see through it
    measured = {
        "bits_per_dim": ("bits/dim", bits + level + 0.002 * luck[0]),
        "frechet": ("Fréchet distance, x features", frechet + 10 * level + 2 * luck[1]),
        "parameters": ("parameters", parameters),
    }
    metrics = {
        key: {"unit": unit, "better": "lower", "role": ROLES[key], "mean": value}
        for key, (unit, value) in measured.items()
    }
    metrics["parameters"]["parts"] = {"active_per_sample": {"mean": parameters / 2}}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics}))
    latency = {"unit": "ms/image", "better": "lower", "role": "cost", "mean": milliseconds + 0.01 * luck[0]}
    (folder.parent / f"{seed}.alone.json").write_text(json.dumps({"settings": [], "metrics": {"latency": latency}}))
    gain = 0.1 if name == "B" else 0.0
    merged = [0.3, 0.3, 0.3, 0.3 - gain, 0.3 - gain]
    density = [value + 0.001 * abs(luck[0]) for value in merged]
    n = 1 if name == "A" else 4
    diagnostics = {
        "bound_by_log_snr": {"log_snr": LOG_SNR, "merged": density, "experts": [], "unit": "bits/dim per unit log-SNR"},
        "image_bits": [2.0 + 0.001 * luck[0], 2.0 - gain + 0.001 * luck[1]] * 4,
    }
    if n > 1:
        diagnostics |= {
            "gate_weights": {"log_snr": LOG_SNR, "mean": [[0.25] * 4] * 5},
            "expert_usage": [0.25] * 4,
            "router_accuracy": {"log_snr": LOG_SNR, "accuracy": [0.5] * 5, "per_slice": [], "chance": 0.5},
            "slices": {"names": ["dark", "light"], "train": [9, 9], "test": [4, 4]},
            "image_slices": [0, 1] * 4,
            "expert_slice_bits": {"matrix": [[2.0, 2.1]] * 4, "merged": [2.0, 2.0], "n": [4, 4]},
        }
    own = folder / f"seed-{seed}"
    own.mkdir()
    (own / "diagnostics.json").write_text(json.dumps(diagnostics))
    events = [
        {"kind": "validation", "phase": "joint", "step": step, "bits_per_dim": bits + level + 1 / step}
        for step in (25, 50, 100)
    ]
    (own / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    Image.new("L", (32, 32), 40 * seed).save(own / "samples.png")
