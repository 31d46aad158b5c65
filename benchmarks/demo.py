"""The demo, timed: what `make demo` runs after installation, its peak memory, and whether its samples read as digits.

    python benchmarks/demo.py        # writes results/engine/digits/

Recognisability is measured by nearest neighbours among the training digits (Euclidean, pixels in [0, 1]): the distance
of the nearest one, and how often the five nearest have the same label. Samples are compared with real test digits and
with test digits whose pixels were shuffled; samples much nearer than real digits would be copies.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import moeframe
from moeframe.runs.environment import describe_environment

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/engine/digits"


def recognisable(folder: Path) -> dict[str, object]:
    """Return nearest-neighbour figures of samples, real test digits and shuffled test digits."""
    from sklearn.neighbors import NearestNeighbors

    run = moeframe.load(folder)
    train, test = run.assembly.train, run.assembly.test

    def flat(images: torch.Tensor) -> np.ndarray:
        return images.flatten(1).numpy() / 16

    index = NearestNeighbors(n_neighbors=5).fit(flat(train.images(torch.arange(len(train)))))
    real = flat(test.images(torch.arange(len(test))))
    groups = {
        "samples": flat(run.sample(len(test), seed=1)),
        "test_digits": real,
        "test_digits_with_shuffled_pixels": np.random.default_rng(0).permuted(real, axis=1),
    }
    figures: dict[str, object] = {"images_each": len(test)}
    for name, images in groups.items():
        distances, neighbours = index.kneighbors(images)
        labels = train.labels.numpy()[neighbours]
        figures[name] = {
            "median_distance_to_nearest": round(float(np.median(distances[:, 0])), 3),
            "five_nearest_agree": round(float((labels == labels[:, :1]).all(1).mean()), 3),
            "nearest_label_counts": np.bincount(labels[:, 0], minlength=10).tolist(),
        }
    return figures


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "digits"
        command = [sys.executable, "-m", "moeframe.cli", "run", str(ROOT / "specs/digits.yaml"), "--out", str(folder)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        OUT.mkdir(parents=True, exist_ok=True)
        for name in ("samples.png", "trajectory.png", "reconstructions.png", "diagnostics.json"):
            shutil.copy(folder / "seed-0" / name, OUT / name)
        shutil.copy(folder / "results.json", OUT / "results.json")
        report = {
            "command": "python benchmarks/demo.py (runs: moeframe run specs/digits.yaml)",
            "environment": describe_environment("cpu"),
            "seconds": round(seconds, 1),
            "peak_resident_memory_mib": round(peak, 1),
            "bits_per_dim": moeframe.run(ROOT / "specs/digits.yaml", out=folder).metrics["bits_per_dim"].mean,
            "bits_per_dim_of_the_uniform_model": round(float(np.log2(17)), 4),
            "recognisable": recognisable(folder),
        }
    (OUT / "demo.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
