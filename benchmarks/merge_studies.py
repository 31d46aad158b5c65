"""Studies of merging trained experts: runs what is unfinished, then gathers and compares.

    python benchmarks/digit_features.py
    python benchmarks/merge_studies.py trade_off_digits          # about an hour on two cores
    python benchmarks/merge_studies.py trade_off_photo_patches   # about two hours
    python benchmarks/merge_studies.py weight_space              # after trade_off_digits; about half an hour
    python benchmarks/merge_studies.py trunk                     # about twenty minutes

Every run is a user's command, `moeframe run` or `moeframe merge` on a file of specs/; run folders are in runs/. Writes
results/merge/NAME.json, and the trade-off curves as SVG. Nothing was chosen after seeing results: every variant, seed
and setting is in the specs and below.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import moeframe
from moeframe.runs.environment import describe_environment
from moeframe.runs.sweep import sweep
from moeframe.stats.comparison import compare_paired

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/merge"
RUNS = Path("runs")
FIGURES = ("bits_per_dim", "frechet")


def finished(spec: str, name: str | None = None, *overrides: str, merging: bool = False) -> dict[str, Any]:
    """results.json of a run, which is done first where it is not yet; its folder is runs/NAME."""
    path = ROOT / "specs" / spec
    folder = RUNS / (name or path.stem)
    (moeframe.merge if merging else moeframe.run)(path, overrides=overrides, out=folder)
    print(f"{folder}: done", flush=True)
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def per_seed(results: dict[str, Any], metric: str) -> list[float]:
    return [float(value) for value in results["metrics"][metric]["per_seed"]]


def row(results: dict[str, Any], metrics: tuple[str, ...] = FIGURES) -> dict[str, Any]:
    """Mean, interval and seeds of each metric."""
    found = {}
    for name in metrics:
        metric = results["metrics"].get(name)
        if metric is not None:
            found[name] = {key: metric[key] for key in ("mean", "interval", "per_seed", "unit")}
    return found


def against(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Paired differences of both figures; negative is better in both."""
    found = {}
    for name in FIGURES:
        one = compare_paired(per_seed(ours, name), per_seed(theirs, name), "lower")
        found[name] = {"difference": one.mean_difference, "interval": one.interval, "verdict": one.verdict, "n": one.n}
    return found


def trade_off(data: str, places: int, *overrides: str) -> dict[str, Any]:
    """Quality expert, likelihood expert, and the switch between them wherever it is put."""
    rows = {kind: row(finished(f"trade_off/{data}_{kind}.yaml")) for kind in ("quality", "likelihood")}
    merged = finished(f"trade_off/{data}_merge.yaml", None, *overrides, merging=True)
    folder = RUNS / f"{data}_merge"
    if not (folder / "sweep.json").exists():
        sweep(folder, places)
    shutil.copy(folder / "sweep.svg", OUT / f"trade_off_{data}.svg")
    swept = json.loads((folder / "sweep.json").read_text())
    points = {point["name"]: point for point in swept["points"] if point["name"] != "switch"}
    experts = [points["expert 0 alone"], points["expert 1 alone"]]
    better = {figure: min(experts, key=lambda point: point[figure])["name"] for figure in ("bits_per_dim", "quality")}
    return {
        "experts": {"expert 0": "quality (EDM's weighting)", "expert 1": "likelihood (the bound's weighting)"},
        "runs": {**rows, "merge": row(merged)},
        "eta_by_auto": {seed["seed"]: seed["eta"] for seed in points["merge"]["seeds"]},
        "better_expert": better,
        "merge_against_the_better_expert": {
            one["figure"]: one for one in swept["comparisons"] if one["against"] == better[one["figure"]]
        },
        "sweep": {key: swept[key] for key in ("how", "points", "comparisons", "quality_unit")},
    }


def weight_space() -> dict[str, Any]:
    """Four slice experts merged in output space and in weight space, with and without a common ancestor."""
    report: dict[str, Any] = {}
    ancestor = finished("trade_off/digits_quality.yaml")
    report["ancestor (the quality expert of the trade-off, seeds 0 to 2 of 6, 100 steps)"] = row(ancestor)
    for source in ("digits_slices", "digits_slices_independent"):
        finished(f"weight_space/{source}.yaml")
        outer, inner = f"experts.0.path=runs/{source}", f"experts.0.experts.0.path=runs/{source}"
        found = {
            "output space: mean of the predictions": finished(
                "weight_space/digits_uniform.yaml", f"{source}_uniform", outer, merging=True
            ),
            "output space: posterior by a slice classifier": finished(
                "weight_space/digits_posterior.yaml", f"{source}_posterior", outer, merging=True
            ),
            "weight space: average": finished(
                "weight_space/digits_average.yaml", f"{source}_average", inner, merging=True
            ),
        }
        if source == "digits_slices":
            found["weight space: task arithmetic, scale 0.4"] = finished(
                "weight_space/digits_task_arithmetic.yaml", f"{source}_task_arithmetic", merging=True
            )
        mean = found["output space: mean of the predictions"]
        report["common ancestor" if source == "digits_slices" else "independent"] = {
            name: {
                **row(results, (*FIGURES, "network_calls")),
                **({} if results is mean else {"minus the mean of the predictions": against(results, mean)}),
            }
            for name, results in found.items()
        }
    return report


def trunk() -> dict[str, Any]:
    """Trunk and adapters against four independent experts: figures, sizes and step times."""
    found = {name: finished(f"trunk/digits_{name}.yaml") for name in ("independent", "lora", "bottleneck")}
    report: dict[str, Any] = {}
    for name, results in found.items():
        entry = row(results)
        for metric in ("parameters", "flops", "network_calls"):
            figures = results["metrics"][metric]
            parts = {part: value["mean"] for part, value in figures["parts"].items()}
            entry[metric] = {"value": figures["mean"], **parts}
        if name != "independent":
            entry["minus independent"] = against(results, found["independent"])
        report[name] = entry
    report["step_time_over_independent"] = step_times(tuple(found))
    return report


def step_times(names: tuple[str, ...], batch: int = 64, repeats: int = 40) -> dict[str, Any]:
    """Median time of one merged evaluation, and of one with its gradient, side by side; as multiples of the first."""
    models = {name: moeframe.load(RUNS / f"digits_{name}").denoiser for name in names}
    z, log_snr = torch.randn(batch, 1, 8, 8), torch.linspace(-6, 6, batch)
    times: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in names} for what in ("evaluation", "evaluation with gradient")
    }
    for _ in range(repeats):
        for name, model in models.items():  # in turn, so that a machine that grows busy slows all of them
            with torch.no_grad():
                start = time.perf_counter()
                model(z, log_snr)
                times["evaluation"][name].append(time.perf_counter() - start)
            start = time.perf_counter()
            model(z, log_snr).velocity.square().sum().backward()
            times["evaluation with gradient"][name].append(time.perf_counter() - start)
    medians = {what: {name: statistics.median(each) for name, each in own.items()} for what, own in times.items()}
    return {
        "how": f"batch {batch}, medians of {repeats}, in turn, {torch.get_num_threads()} thread(s)",
        **{what: {name: round(own[name] / own[names[0]], 3) for name in names} for what, own in medians.items()},
    }


STUDIES = {
    "trade_off_digits": lambda: trade_off("digits", 9),
    "trade_off_photo_patches": lambda: trade_off("photo_patches", 3, "sampler.steps=50"),
    "weight_space": weight_space,
    "trunk": trunk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    study = parser.parse_args().study
    OUT.mkdir(parents=True, exist_ok=True)
    report = {
        "command": f"python benchmarks/merge_studies.py {study}",
        "environment": describe_environment("cpu"),
        **STUDIES[study](),
    }
    (OUT / f"{study}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=1, ensure_ascii=False)[:4000], file=sys.stderr)


if __name__ == "__main__":
    main()
