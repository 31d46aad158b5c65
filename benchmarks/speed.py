"""Speed, as ratios measured side by side in one run, on this machine's CPU.

    python benchmarks/speed.py        # writes results/engine/speed.json

- one sampling step: top-2 of 4 against dense, same experts, by batch size
- engine overhead: Trainer's step against a bare loop over the same network, data and optimiser
- start-up: `moeframe --help` and `moeframe validate`, against `python -c pass` and `python -c 'import torch'`
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from moeframe.assembly import Assembly, assemble
from moeframe.diffusion import add_noise, bits_per_dim, diffusion_nats, to_pixels, velocity_of
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.runs.environment import describe_environment
from moeframe.spec.loader import load_spec
from moeframe.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "specs/digits.yaml"
OUT = ROOT / "results/engine/speed.json"


def interleaved(repeats: int, **jobs: Callable[[], object]) -> dict[str, list[float]]:
    """Time the jobs in turn, so that noise from other users of the machine affects all of them equally."""
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return times


def summary(times: dict[str, list[float]], baseline: str) -> dict[str, object]:
    """Medians in milliseconds, and the median of the paired ratios to the baseline with its quartiles."""
    report: dict[str, object] = {
        f"{name}_ms": round(1000 * statistics.median(values), 3) for name, values in times.items()
    }
    for name, values in times.items():
        if name != baseline:
            ratios = [value / base for value, base in zip(values, times[baseline], strict=True)]
            quartiles = statistics.quantiles(ratios, n=4)
            report[f"{name}_over_{baseline}"] = [round(quartile, 4) for quartile in quartiles]
    return report


def assembled(*overrides: str) -> Assembly:
    """The digits spec, changed."""
    registry = Registry.installed()
    return assemble(load_spec(SPEC, registry, overrides), registry, seed=0)


@torch.no_grad()
def sparse_against_dense() -> dict[str, object]:
    """One evaluation of the merged denoiser: two of four experts per item, spread evenly, against all four."""
    report: dict[str, object] = {}
    for size in ("digits 8x8x1", "32x32x3"):
        shape = (
            []
            if size.startswith("digits")
            else ["dataset={type: gaussian, channels: 3, size: 32}", "slicer=null", "training.warm_start=0"]
        )
        dense = assembled(*shape).model.eval()
        sparse = assembled("gate.type=top_k", "gate.k=2", *shape).model.eval()
        _scramble_gate(sparse)
        image = sparse.experts[0].image
        for batch in (16, 64, 256):
            z = torch.randn(batch, *image.tensor_shape)
            log_snr = torch.linspace(-6, 6, batch)
            calls = sparse(z, log_snr).network_calls
            times = interleaved(15, dense=lambda: dense(z, log_snr), top_2=lambda: sparse(z, log_snr))  # noqa: B023
            report[f"{size}, batch {batch}"] = {**summary(times, "dense"), "top_2_calls_per_item": calls / batch}
    return report


def _scramble_gate(model: MergedDenoiser) -> None:
    """An untrained gate is uniform and would send every item to the first two experts."""
    assert model.gate is not None
    last = list(model.gate.parameters())[-2]
    torch.nn.init.normal_(last, std=3.0)


def overhead_of_the_engine() -> dict[str, object]:
    """Trainer's joint step with one expert against the same computation written as a bare loop."""
    report = {}
    for title, changes in {
        "digits, 16 channels, batch 64": [],
        "digits, 64 channels, batch 64": ["experts.0.channels=64"],
    }.items():
        overrides = (
            "experts.0.copies=1",
            "gate=null",
            "slicer=null",
            "objective=[{type: nll}]",
            "training.warm_start=0",
        )
        trainer = Trainer(assembled(*overrides, *changes))
        bare = _BareLoop(assembled(*overrides, *changes))
        steps = trainer.train_jointly()
        report[title] = summary(interleaved(120, bare=bare.step, engine=lambda: next(steps)), "bare")  # noqa: B023
    return report


class _BareLoop:
    """What a researcher would write by hand: batch, noise, schedule, network, bound-weighted loss, clip, AdamW, EMA."""

    def __init__(self, assembly: Assembly):
        self.a = assembly
        self.config = assembly.spec.training
        self.network = assembly.model.experts[0].train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.ema = [parameter.detach().clone() for parameter in self.network.parameters()]
        self.data = to_pixels(assembly.train.images(torch.arange(len(assembly.train))), assembly.image.levels)

    def step(self) -> float:
        a, size = self.a, self.config.batch_size
        x = self.data[torch.randint(len(self.data), (size,))]
        noise = torch.randn_like(x)
        times = (torch.rand(()) + torch.arange(size) / size) % 1
        log_snr, rate = a.schedule.log_snr(times), a.schedule.rate(times)
        velocity = self.network(add_noise(x, noise, log_snr), log_snr)
        nats = rate * diffusion_nats(velocity_of(x, noise, log_snr), velocity, log_snr)
        loss = bits_per_dim(nats, x[0].numel()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, list(self.network.parameters()), 0.01)
        return float(loss.detach())


def start_up() -> dict[str, object]:
    """Median seconds per command."""
    moeframe = str(Path(sys.executable).with_name("moeframe"))
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import_torch": [sys.executable, "-c", "import torch"],
        "help": [moeframe, "--help"],
        "validate": [moeframe, "validate", str(SPEC)],
    }
    jobs = {name: _command(words) for name, words in commands.items()}
    times = interleaved(7, **jobs)
    return {f"{name}_s": round(statistics.median(values), 3) for name, values in times.items()}


def _command(words: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(words, check=True, capture_output=True)


def main() -> None:
    report = {
        "command": "make bench",
        "environment": describe_environment("cpu"),
        "how": "jobs interleaved in one process; medians; ratios are quartiles of paired ratios",
        "one_step_of_the_merged_denoiser": sparse_against_dense(),
        "training_step_engine_against_bare_loop": overhead_of_the_engine(),
        "start_up": start_up(),
        "gpu": "not measured on GPU",
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
