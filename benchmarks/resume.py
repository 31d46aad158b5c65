"""Interrupt and resume: SIGKILL at ten moments, the same command again, and the same bits as a run never interrupted.

    python benchmarks/resume.py        # writes results/engine/resume.json

The moments: during start-up, the warm start, joint training, while a checkpoint is written, and during evaluation.
Compared: every tensor of the last checkpoint, events.jsonl, and every metric that is not a timing or a memory reading.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from moeframe.interfaces.metric import Metric
from moeframe.plugin.registry import Registry
from moeframe.runs.environment import describe_environment
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/engine/resume.json"
STEPS, WARM = 60, 20
OVERRIDES = (
    "name=resume",
    f"training.steps={STEPS}",
    f"training.warm_start={WARM / STEPS}",
    "training.batch_size=32",
    "training.log_every=1",
    "training.checkpoint_every=5",
    "training.validation_every=20",
    "training.validation_images=64",
    "experts.0.channels=8",
    "experts.0.dropout=0.1",
    "sampler.steps=10",
    "evaluation.diagnostic_images=64",
    "metrics.1.samples=64",
    "metrics.2.images=64",
    "metrics.3.images=64",
)


def command(folder: Path) -> list[str]:
    words = [sys.executable, "-m", "moeframe.cli", "run", str(ROOT / "specs/digits.yaml"), "--out", str(folder)]
    return words + [word for override in OVERRIDES for word in ("--set", override)]


def at_step(step: int) -> Callable[[RunFolder], bool]:
    """True once events.jsonl holds the step."""

    def reached(folder: RunFolder) -> bool:
        events = folder.seed(0) / "events.jsonl"
        return events.exists() and f'"step": {step},' in events.read_text()

    return reached


def saving(step: int) -> Callable[[RunFolder], bool]:
    """True while the checkpoint of that step is being written."""
    return lambda folder: (folder.checkpoints(0) / f".step-{step:08d}.partial").exists()


def evaluating(seconds: float) -> Callable[[RunFolder], bool]:
    """True some time after training has ended."""
    since: list[float] = []

    def reached(folder: RunFolder) -> bool:
        if (folder.checkpoints(0) / f"step-{STEPS:08d}").exists() and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return reached


MOMENTS = {
    "start-up": lambda folder: folder.spec.exists(),
    "warm start, step 1": at_step(1),
    "warm start, step 13": at_step(13),
    "saving in the warm start": saving(10),
    "last step of the warm start": at_step(WARM),
    "first joint step": at_step(WARM + 1),
    "joint training, step 38": at_step(38),
    "saving in joint training": saving(45),
    "evaluation, at its start": evaluating(0.0),
    "evaluation, 4 s in": evaluating(4.0),
}


def kill_and_resume(folder: Path, reached: Callable[[RunFolder], bool]) -> str:
    """Run until `reached`, kill with SIGKILL, run again to the end. Returns what was there after the kill."""
    place = RunFolder(folder)
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached(place):
        time.sleep(0.0005)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    newest = checkpoint.latest(place.checkpoints(0))
    partial = [path.name for path in place.checkpoints(0).glob(".*.partial")] if place.checkpoints(0).exists() else []
    assert not place.metrics(0).exists()
    subprocess.run(command(folder), check=True, capture_output=True)
    return f"{newest.name if newest else 'no checkpoint'}{', with a half-written one' if partial else ''}"


def differences(first: RunFolder, second: RunFolder, timings: set[str]) -> list[str]:
    """What is not bit-equal between two finished runs."""
    found = []
    a, b = (checkpoint.load(checkpoint.latest(folder.checkpoints(0))) for folder in (first, second))
    for group, tensors in a.tensors.items():
        found += [
            f"{group}.{name}" for name, tensor in tensors.items() if not torch.equal(tensor, b.tensors[group][name])
        ]
    one, two = (json.loads(folder.metrics(0).read_text()) for folder in (first, second))
    found += [f"metric {name}" for name in one if name not in timings and one[name] != two[name]]
    for name in ("events.jsonl", "diagnostics.json", "samples.png"):
        if (first.seed(0) / name).read_bytes() != (second.seed(0) / name).read_bytes():
            found.append(name)
    return found


def main() -> None:
    registry = Registry.installed()
    timings = {name for name in registry.names(Metric.KIND) if not registry.get(Metric, name).DETERMINISTIC}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        reference = RunFolder(Path(scratch) / "uninterrupted")
        subprocess.run(command(reference.path), check=True, capture_output=True)
        for moment, reached in MOMENTS.items():
            folder = Path(scratch) / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            left = kill_and_resume(folder, reached)
            differing = differences(reference, RunFolder(folder), timings)
            rows.append({"killed": moment, "left_behind": left, "differs": differing})
            print(rows[-1], flush=True)
    report = {
        "command": "python benchmarks/resume.py",
        "environment": describe_environment("cpu"),
        "compared": "all tensors of the last checkpoint, events.jsonl, diagnostics.json, samples.png, every metric "
        f"except {', '.join(sorted(timings))}",
        "bit_equal": sum(not row["differs"] for row in rows),
        "of": len(rows),
        "moments": rows,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    assert report["bit_equal"] == report["of"], "a resumed run differs"


if __name__ == "__main__":
    main()
