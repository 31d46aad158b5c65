"""How often the 95 % intervals of Fréchet distance, KID and inception score hold the mean figure at their N.

    python benchmarks/coverage_quality.py    # some minutes of one core; writes results/evaluation/coverage_quality.json

Features of known distributions, drawn anew 2,000 times. The truth is the mean over the studies: a Fréchet distance
and an inception score of N images are biased, and their intervals are about the mean at that N.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from moeframe.environment import describe_environment
from moeframe.randomness import Streams
from moeframe_builtin.metrics.frechet import INTERVAL_FROM, INTERVAL_RATIO
from moeframe_builtin.metrics.frechet_distance import frechet_estimate
from moeframe_builtin.metrics.inception_score import INTERVAL_FROM as IS_FROM
from moeframe_builtin.metrics.inception_score import inception_score, score_standard_error
from moeframe_builtin.metrics.kid import INTERVAL_FROM as KID_FROM
from moeframe_builtin.metrics.kid import SUBSETS, mmd_standard_error, subset_mmd

OUT = Path(__file__).resolve().parent.parent / "results/evaluation/coverage_quality.json"
STUDIES = 2000
Study = Callable[[Streams], tuple[float, float]]
"""Draws a study; its value and its standard error."""


def frechet(dims: int, n: int, *, apart: float = 0.3) -> Study:
    """Two Gaussians of other scales and means."""
    scale = torch.linspace(0.5, 2, dims) if apart else torch.ones(dims)

    def study(streams: Streams) -> tuple[float, float]:
        found = frechet_estimate(streams.normal((n, dims), "one"), scale * streams.normal((n, dims), "two") + apart)
        return found.value, found.standard_error

    return study


def kid(n: int, subset: int) -> Study:
    """Two Gaussians of other means, eight features."""

    def study(streams: Streams) -> tuple[float, float]:
        one, two = streams.normal((n, 8), "one"), streams.normal((n, 8), "two") + 0.4
        value, spread = subset_mmd(one, two, subset)
        return value, (mmd_standard_error(one, two) ** 2 + spread**2 / SUBSETS) ** 0.5

    return study


def score(n: int, splits: int, classes: int) -> Study:
    """Logits of so many classes, normal, of standard deviation 3."""

    def study(streams: Streams) -> tuple[float, float]:
        logits = 3 * streams.normal((n, classes), "logits")
        return inception_score(logits, splits)[0], score_standard_error(logits, splits)

    return study


def coverage_of(study: Study, *, offered: bool) -> dict[str, Any]:
    """Share of the studies whose interval holds the mean, with its own error."""
    pairs = [study(Streams(seed)) for seed in range(STUDIES)]
    values, errors = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    covered = float(((values - values.mean()).abs() < 1.96 * errors).double().mean())
    return {
        "coverage": round(covered, 4),
        "monte_carlo_error": round((covered * (1 - covered) / STUDIES) ** 0.5, 4),
        "offered": offered,
        "met": abs(covered - 0.95) <= 0.015 if offered else None,
    }


def main() -> None:
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for dims, n in (
        (8, 400),
        (16, 400),
        (16, 800),
        (64, 400),
        (64, 800),
        (64, 1300),
        (100, 400),
        (128, 400),
        (128, 1300),
    ):
        offered = n >= max(INTERVAL_FROM, INTERVAL_RATIO * dims)
        rows[f"Fréchet distance, {n} images of {dims} features"] = coverage_of(frechet(dims, n), offered=offered)
        print(f"{n} images, {dims} features", rows[f"Fréchet distance, {n} images of {dims} features"], flush=True)
    for n, subset in ((KID_FROM, 50), (KID_FROM, KID_FROM), (1000, 200)):
        rows[f"KID, {n} images, subsets of {subset}"] = coverage_of(kid(n, subset), offered=True)
        print(f"KID {n}", rows[f"KID, {n} images, subsets of {subset}"], flush=True)
    for n, splits, classes in (
        (100, 1, 10),
        (100, 1, 1008),
        (IS_FROM, 1, 10),
        (IS_FROM, 1, 1008),
        (2000, 2, 1008),
    ):
        name = f"inception score, {n} images in {splits} splits, {classes} classes"
        rows[name] = coverage_of(score(n, splits, classes), offered=n // splits >= IS_FROM)
        print(name, rows[name], flush=True)
    # samples as good as real images: the influence vanishes, and the interval errs to the safe side
    for dims, n in ((8, 400), (64, 400)):
        name = f"Fréchet distance of two sets of one law, {n} images of {dims} features"
        rows[name] = coverage_of(frechet(dims, n, apart=0.0), offered=False)
        print(name, rows[name], flush=True)
    asked = [row["met"] for row in rows.values() if row["offered"]]
    report = {
        "command": "python benchmarks/coverage_quality.py",
        "environment": describe_environment("cpu"),
        "required": "95 ± 1.5 % where offered",
        "studies": STUDIES,
        "met": sum(asked),
        "of": len(asked),
        "coverage": rows,
    }
    OUT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
