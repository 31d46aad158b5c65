"""Memory of drawing and measuring many samples: beyond the features it should not grow with their number.

    python benchmarks/sampling_memory.py     # some minutes; writes results/evaluation/sampling_memory.json

Each N in a process of its own: a small untrained network draws N samples of 64x64 pixels in two steps, and `frechet`
compares 64 features of them with 2,000 images of the training split. The peak is of the process's own (anonymous)
memory: a batch of 256 in the network, whatever N. Of the largest N all samples in bytes would take 586 MiB: what it
takes beyond the smallest N, features aside, has to stay below a quarter of that. And two batches in 100 steps instead
of two: states of a trajectory that were kept would take 2,352 MiB more, of which a quarter is allowed too.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from torch import nn

from moeframe.assembly import assemble
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.plugin.registry import Registry
from moeframe.runs.environment import describe_environment
from moeframe.spec.binding import bind
from moeframe_builtin.metrics.frechet import FrechetMetric

OUT = Path(__file__).resolve().parent.parent / "results/evaluation/sampling_memory.json"
SIZES = (2_000, 10_000, 50_000)
FEATURES = 64
SIDE = 64
REFERENCE = 2_000
STEPS, MANY_STEPS = 2, 100
BATCH = 256


def colours() -> nn.Module:
    """64 features of an image, of a random linear map."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, FEATURES))


def anonymous_mib() -> float:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(n: int, steps: int) -> dict[str, float]:
    """Of this process, MiB."""
    registry = Registry.installed()
    spec = {
        "name": "memory",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": SIDE, "std": 0.3, "n_train": REFERENCE, "n_test": 100},
        "slicer": None,
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "channels": 4, "channel_multipliers": [1]}],
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": steps},
        "evaluation": {"batch_size": BATCH},
    }
    assembly = assemble(bind(spec, registry), registry, seed=0)
    metric = FrechetMetric(
        FrechetMetric.Config(
            features="module",
            module="sampling_memory:colours",
            samples=n,
            reference="train",
            reference_images=REFERENCE,
        )
    )
    before, peak, done = anonymous_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = ModelEvaluation(assembly, assembly.model, Path(folder))
        metric.measure(evaluation)
    done.set()
    watcher.join()
    found = {
        "before_mib": before,
        "growth_mib": peak - before,
        "features_mib": (n + REFERENCE) * FEATURES * 4 / 2**20,
        "all_samples_in_bytes_mib": n * 3 * SIDE**2 / 2**20,
    }
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
        return
    found = {}
    for n, steps in (*((n, STEPS) for n in (2 * BATCH, *SIZES)), (2 * BATCH, MANY_STEPS)):
        command = [sys.executable, __file__, str(n), str(steps)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        name = f"{n}_samples" + ("" if steps == STEPS else f"_in_{steps}_steps")
        found[name] = json.loads(printed.splitlines()[-1])
        print(name, found[name], flush=True)
    smallest, largest = found[f"{SIZES[0]}_samples"], found[f"{SIZES[-1]}_samples"]
    beyond = [one["growth_mib"] - one["features_mib"] for one in (smallest, largest)]
    few, many = found[f"{2 * BATCH}_samples"], found[f"{2 * BATCH}_samples_in_{MANY_STEPS}_steps"]
    longer = many["growth_mib"] - few["growth_mib"]
    states = 2 * (MANY_STEPS - STEPS) * BATCH * 3 * SIDE**2 * 4 / 2**20  # z and the predicted image of each
    document = {
        "command": "python benchmarks/sampling_memory.py",
        "environment": describe_environment("cpu"),
        "what": "growth_mib: peak of anonymous memory beyond that before sampling; features_mib: what the features of "
        f"samples and reference take at {FEATURES} float32 each; all_samples_in_bytes_mib: what the samples would take "
        "if they were kept",
        "found": found,
        "states_of_a_batch_mib": round(states, 1),
        "required": f"growth at {SIZES[-1]} samples less that at {SIZES[0]}, features aside, below a quarter of all "
        f"samples in bytes; growth in {MANY_STEPS} steps less that in {STEPS} below a quarter of the states between",
        "met": beyond[1] - beyond[0] < largest["all_samples_in_bytes_mib"] / 4 and longer < states / 4,
    }
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if not document["met"]:
        sys.exit("memory grows")


if __name__ == "__main__":
    main()
