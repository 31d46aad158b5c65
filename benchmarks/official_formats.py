"""The specs that a GPU user would run, on small data in the official formats of CIFAR-10, CelebA-HQ and LSUN.

    python benchmarks/official_formats.py      # writes results/data/official_formats.json

Each spec is run by the command line with fewer steps, smaller networks and images of 32x32 pixels; everything else
is as the spec says. The data are crops of photographs: the figures say that the path works, nothing about the method.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from moeframe.runs.environment import describe_environment

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/data/official_formats.json"
sys.path.insert(0, str(ROOT / "tests/support"))

from official_celeba_hq import write_celeba_hq  # noqa: E402
from official_cifar10 import write_cifar10  # noqa: E402
from official_lsun import write_lsun  # noqa: E402

SHORT = (
    "device=cpu",
    "seeds=[0]",
    "dataset.verify=false",
    "experts.0.channels=16",
    "experts.0.attention_heads=1",
    "training.steps=20",
    "training.batch_size=8",
    "training.precision=fp32",
    "training.workers=2",
    "training.learning_rate_warmup=0",
    "training.validation_images=16",
    "sampler.steps=5",
    "evaluation.batch_size=16",
    "evaluation.samples_shown=16",
    "evaluation.diagnostic_images=16",
)


def run(name: str, *overrides: str) -> dict[str, Any]:
    """Run a spec in the working folder; its figures, slices and card."""
    command = [str(Path(sys.executable).parent / "moeframe"), "run", str(ROOT / f"specs/{name}.yaml"), "--out", name]
    for override in (*SHORT, *overrides):
        command += ["--set", override]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    results, card = (json.loads(Path(name, file).read_text()) for file in ("results.json", "card.json"))
    slices = json.loads(Path(name, "seed-0/diagnostics.json").read_text())["slices"]
    return {
        "overrides": [*SHORT, *overrides],
        "seconds": round(seconds),
        "slices": slices,
        "metrics": {key: metric.get("mean", metric.get("unavailable")) for key, metric in results["metrics"].items()},
        "splits": card["splits"],
        "left_out": card.get("left_out", {}),
        "duplicates": {key: card["duplicates"][key] for key in ("exact", "near")},
    }


def main() -> None:
    found: dict[str, Any] = {"command": "python benchmarks/official_formats.py"}
    found["environment"] = describe_environment("cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        data = Path("data")
        write_cifar10(data)
        faces = write_celeba_hq(data, n=160, zipped=True)
        write_lsun(data, n_train=160, n_val=32)
        small = "dataset.size=32"
        found["cifar10"] = run("cifar10")
        partition = next(data.rglob("list_eval_partition.txt"))
        found["celeba_hq"] = run("celeba_hq", f"dataset.root={faces}", f"dataset.partition={partition}", small)
        found["lsun_church"] = run("lsun_church", small)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: found[name]["metrics"] for name in ("cifar10", "celeba_hq", "lsun_church")}, indent=1))


if __name__ == "__main__":
    main()
