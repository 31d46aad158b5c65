"""Errors, intervals and cost of the likelihood methods in use, with random noise and times.

    python benchmarks/likelihood.py                      # up to half an hour; writes results/evaluation/likelihood.json
    python benchmarks/likelihood.py --run runs/digits    # and the methods side by side on a trained model

benchmarks/exactness.py compares the same methods with closed forms without Monte Carlo error.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures.closed_forms import HIGH, LOW, Case, cases, line
from numpy.typing import NDArray
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.metric import Evaluation
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.runs.environment import describe_environment
from moeframe.runs.loaded import load
from moeframe.stats.intervals import normal_interval
from moeframe_builtin.metrics.bits_per_dim import BitsPerDimMetric

OUT = Path(__file__).resolve().parent.parent / "results/evaluation/likelihood.json"
KNOWN = {f"variance ratio, {dims} dims: 30 or more" for dims in (2, 64)}
"""What is not met: in few dimensions noise and images cause most of the variance, which no times can take away."""
RANGE = line(-10, 9)
"""Of the log-SNRs in which low-discrepancy times are compared with independent ones."""
STREAMS = Streams(31)
CASES = dict(cases())


class KnownModel(Evaluation):
    """Images of known density with their true denoiser, all that a likelihood needs."""

    def __init__(self, case: Case, levels: Tensor, seed: int):
        self.denoiser, self.image, self.schedule = case.model, case.image, line(LOW, HIGH)
        self.gate = case.model.gate
        self.test = InMemoryExamples(levels, torch.zeros(len(levels), dtype=torch.long))
        pilot = case.levels(512, 10**6)
        self.train = InMemoryExamples(pilot, torch.zeros(len(pilot), dtype=torch.long))
        self.streams, self.device = Streams(seed), torch.device("cpu")

    def test_batches(self, n: int | None) -> Iterator[tuple[int, Tensor]]:
        yield 0, self.test.images(torch.arange(len(self.test) if n is None else n))

    def sample_batches(self, n: int) -> Iterator[Tensor]:
        raise NotImplementedError

    def once(self, key: Any, compute: Any) -> Any:
        raise NotImplementedError

    def reconstructions(self, log_snr: float, n: int) -> Any:
        raise NotImplementedError

    def pixels(self, levels: Tensor) -> Tensor:
        raise NotImplementedError


def metric(**settings: Any) -> BitsPerDimMetric:
    return BitsPerDimMetric(BitsPerDimMetric.Config.model_validate(settings))


# --- closed forms -----------------------------------------------------------------------------------------------------


def closed_forms(images: int = 4, copies: int = 64, repeats: int = 128) -> dict[str, Any]:
    """The two bounds with random noise and times, in Monte Carlo errors from the closed form of the same images."""
    report: dict[str, Any] = {}
    for name, case in CASES.items():
        few = case.levels(images)
        many = KnownModel(case, few.repeat(copies, 1, 1, 1), seed=1)
        for method, settings, steps in (
            ("continuous", {}, None),
            ("discrete, 64 steps", {"method": "discrete", "steps": 64, "terms": 4}, 64),
        ):
            exact = sum(case.expected_bound(levels, steps) for levels in few.split(1)) / images
            found = metric(repeats=repeats, **settings).measure(many)
            error = found.parts["monte_carlo_error"]
            report[f"{method}: {name}"] = {
                "closed_form": exact,
                "bits_per_dim": found.value,
                "monte_carlo_error": error,
                "in_errors": (found.value - exact) / error,
            }
            print(method, name, report[f"{method}: {name}"], flush=True)
    return report


# --- standard errors and intervals ------------------------------------------------------------------------------------

SIMULATED: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("continuous", "mixture, 64 dims", 30, {"repeats": 1}),
    ("continuous", "mixture, 64 dims", 100, {"repeats": 1}),
    ("continuous", "mixture, 64 dims", 100, {"repeats": 4}),
    ("continuous", "mixture, 2 dims", 960, {"repeats": 1}),  # the fewest for which an interval is offered
    ("continuous", "mixture, 2 dims", 240, {"repeats": 4}),
    ("continuous, fitted density", "mixture, 2 dims", 480, {"repeats": 2, "importance": "fitted"}),
    ("discrete", "mixture, 2 dims", 960, {"method": "discrete", "steps": 64, "terms": 1, "repeats": 1}),
    ("discrete", "mixture, 64 dims", 100, {"method": "discrete", "steps": 64, "terms": 4, "repeats": 1}),
    ("discrete", "mixture, 64 dims", 100, {"method": "discrete", "steps": 64, "terms": 4, "repeats": 3}),
    ("ode", "mixture, 2 dims", 30, {"method": "ode", "rtol": 1e-3, "atol": 1e-3, "repeats": 1}),
    ("ode", "mixture, 2 dims", 100, {"method": "ode", "rtol": 1e-3, "atol": 1e-3, "repeats": 2}),
)


def intervals(simulations: int) -> list[dict[str, Any]]:
    """Standard error over spread, and how often the interval held the truth, with fresh images and draws each time."""
    report = []
    for method, name, n, settings in SIMULATED:
        case, estimator = CASES[name], metric(**settings).config.estimator
        values, errors = [], []
        for simulation in range(simulations):
            known = KnownModel(case, case.levels(n, simulation), seed=simulation)
            estimate = estimator.estimate(known, n, settings["repeats"])
            values.append(float(sum(part.mean() for part in estimate.parts.values())))
            errors.append(estimate.standard_error)
        truth = float(np.mean(values))
        ends = [normal_interval(*pair, n).ends for pair in zip(values, errors, strict=True)]
        held = float(np.mean([low <= truth <= high for low, high in filter(None, ends)]))
        first = 200
        report.append(
            {
                "method": method,
                "data": name,
                "images": n,
                "draws_per_image": settings["repeats"],
                "standard_error_over_spread_of_200": float(np.mean(errors[:first]) / np.std(values[:first], ddof=1)),
                "standard_error_over_spread": float(np.mean(errors) / np.std(values, ddof=1)),
                "simulations": simulations,
                "coverage": held,
                "monte_carlo_error": math.sqrt(held * (1 - held) / simulations),
            }
        )
        print(report[-1], flush=True)
    return report


# --- what low discrepancy saves ---------------------------------------------------------------------------------------


def independent_times(repeat: int) -> Tensor:
    return STREAMS.uniform((64,), "free", repeat)


def even_times(repeat: int) -> Tensor:
    return STREAMS.low_discrepancy(64, "even", repeat)


def variance_ratio(
    model: MergedDenoiser, schedule: Any, image: ImageShape, images: Callable[[int], Tensor], repeats: int
) -> float:
    """Variance of the mean diffusion term at 64 independent times over that at 64 low-discrepancy ones."""
    variances = []
    for draw in (independent_times, even_times):
        means = []
        for repeat in range(repeats):
            items = Trajectories.numbered(STREAMS, repeat * 64, (repeat + 1) * 64)
            times = draw(repeat)
            means.append(continuous_bound(model, schedule, image, images(repeat), times, items).diffusion.mean())
        variances.append(float(torch.stack(means).double().var()))
    return variances[0] / variances[1]


def expected_term(times: Tensor) -> NDArray[np.float64]:
    """The diffusion term of Gaussian data at each time, bits/dim, in closed form."""
    std = CASES["Gaussian, 2 dims"].density.stds[0]
    power = std**2 * RANGE.log_snr(times).double().exp()
    return ((RANGE.log_snr_max - RANGE.log_snr_min) / (2 * math.log(2)) * power / (1 + power)).numpy()


def analytic_variance_ratios(repeats: int) -> dict[str, Any]:
    """Variance due to times alone, and with noise and images, on Gaussian data with the true denoiser."""
    free, even = (
        float(np.var([expected_term(draw(repeat)).mean() for repeat in range(repeats)], ddof=1))
        for draw in (independent_times, even_times)
    )
    found: dict[str, Any] = {"times alone, any dims": {"ratio": free / even}}
    # At one time the term, times D over its mean m, is chi-square: a variance of 2 m² / D whatever the times are.
    terms = expected_term((torch.arange(4096) + 0.5) / 4096)
    for side in (1, 8, 16, 32):
        case = Case(CASES["Gaussian, 2 dims"].density, ImageShape(1, side, max(side, 2), 32))
        images = lambda repeat, case=case: case.levels(64, repeat)  # noqa: E731
        dims = case.image.n_dims
        most = 1 + float(terms.var() / (terms**2).mean()) * dims / 2
        ratio = variance_ratio(case.model, RANGE, case.image, images, repeats)
        found[f"{dims} dims"] = {"ratio": ratio, "most_that_any_times_can_save": most}
    print("variance ratio", found, flush=True)
    return found


# --- a trained model --------------------------------------------------------------------------------------------------

METHODS: dict[str, dict[str, Any]] = {
    "continuous": {"repeats": 16},
    "continuous, fitted density": {"repeats": 16, "importance": "fitted"},
    "discrete, 10 steps": {"method": "discrete", "steps": 10, "repeats": 4},
    "discrete, 100 steps": {"method": "discrete", "steps": 100, "terms": 10, "repeats": 4},
    "discrete, 1000 steps": {"method": "discrete", "steps": 1000, "terms": 16, "repeats": 4},
    "ode, uniform": {"method": "ode", "repeats": 2},
    "ode, truncated normal": {"method": "ode", "dequantisation": "truncated_normal", "repeats": 2},
}


def trained(folder: Path) -> dict[str, Any]:
    """The methods on the test images of a trained run, and what low discrepancy saves there."""
    run = load(folder, device="cpu")
    evaluation = ModelEvaluation(run.assembly, run.denoiser, folder)
    methods: dict[str, Any] = {}
    for name, settings in METHODS.items():
        try:
            found = metric(**settings).measure(evaluation)
        except UnavailableError as error:
            methods[name] = {"unavailable": str(error)}
        else:
            methods[name] = {
                "bits_per_dim": found.value,
                "parts": dict(found.parts),
                "network_calls_per_image": found.how["network_calls_per_image"],
            }
        print(name, json.dumps(methods[name]), flush=True)

    def images(repeat: int) -> Tensor:
        chosen = STREAMS.permutation(len(run.assembly.test), "trained", repeat)[:64]
        return run.assembly.test.images(chosen)

    return {
        "methods": methods,
        "above_the_continuous_bound": {
            name: _difference(found, methods["continuous"]) for name, found in methods.items() if "parts" in found
        },
        "order": "theory: the discrete bound falls to the continuous one as steps grow; the ODE's is the likelihood of "
        "another model (the same denoiser without noise, another decoder), which a bound need not exceed",
        "discrete_falls_with_steps": [
            _difference(methods[coarse], methods[fine])
            for coarse, fine in itertools.pairwise(
                ("discrete, 10 steps", "discrete, 100 steps", "discrete, 1000 steps", "continuous")
            )
        ],
        "variance_ratio_of_low_discrepancy_at_64": variance_ratio(
            run.denoiser, run.assembly.schedule, run.assembly.image, images, repeats=200
        ),
    }


def _difference(one: dict[str, Any], two: dict[str, Any]) -> dict[str, float]:
    """In bits/dim, of the same test images, with the Monte Carlo error of both."""
    error = math.hypot(*(side["parts"]["monte_carlo_error"] for side in (one, two)))
    return {"bits_per_dim": one["bits_per_dim"] - two["bits_per_dim"], "monte_carlo_error": error}


def requirements(document: dict[str, Any]) -> dict[str, bool]:
    """What has to hold, and whether it does."""
    found = {f"{name}: within 3 errors": abs(one["in_errors"]) < 3 for name, one in document["closed_forms"].items()}
    for one in document["intervals"]["found"]:
        name = f"{one['method']}, {one['data']}, {one['images']} images, {one['draws_per_image']} draws"
        found[f"{name}: standard error within 15 % of the spread"] = abs(one["standard_error_over_spread"] - 1) < 0.15
        found[f"{name}: coverage 95 ± 1.5 %"] = abs(one["coverage"] - 0.95) <= 0.015
    if document["trained"] is not None:
        falls = document["trained"]["discrete_falls_with_steps"]
        found["trained: the discrete bound falls to the continuous one"] = all(one["bits_per_dim"] > 0 for one in falls)
    ratios = document["variance_ratio_of_low_discrepancy_at_64"]
    alone = ratios["times alone, any dims"]["ratio"]
    for name, one in ratios.items():
        found[f"variance ratio, {name}: 30 or more"] = one["ratio"] >= 30
        if most := one.get("most_that_any_times_can_save"):
            expected = 1 / (1 / most + 1 / alone)
            found[f"variance ratio, {name}: within 10 % of {expected:.3g}"] = abs(one["ratio"] / expected - 1) < 0.1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a trained run, such as runs/digits")
    parser.add_argument("--simulations", type=int, default=2000, help="of each interval")
    arguments = parser.parse_args()
    folder = arguments.run
    torch.set_num_threads(1)
    kept = json.loads(OUT.read_text())["trained"] if OUT.exists() else None  # without a run what stood there
    document = {
        "command": "python benchmarks/likelihood.py" + (f" --run {folder}" if folder else ""),
        "environment": describe_environment("cpu"),
        "unit": "bits/dim",
        "closed_forms": closed_forms(),
        "intervals": {
            "what": "fresh images and draws in every simulation; the truth is the mean of all of them",
            "found": intervals(arguments.simulations),
        },
        "variance_ratio_of_low_discrepancy_at_64": analytic_variance_ratios(repeats=4000),
        "trained": trained(folder) if folder else kept,
    }
    required = requirements(document)
    unmet = [name for name, met in required.items() if not met]
    document |= {"met": len(required) - len(unmet), "of": len(required), "not_met": unmet}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if set(unmet) - KNOWN:
        sys.exit(f"not met: {', '.join(sorted(set(unmet) - KNOWN))}")


if __name__ == "__main__":
    main()
