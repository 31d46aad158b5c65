"""The three likelihood methods against closed forms, their standard errors, and what low discrepancy saves.

    python benchmarks/likelihood.py                      # a few minutes; writes results/evaluation/likelihood.json
    python benchmarks/likelihood.py --run runs/digits    # and the methods side by side on a trained model

Closed form of a bound with the true denoiser of a model density p: the chain rule of relative entropy turns its
integral into E[log q(z_0 | x) / p(z_0)] - E[log q(z_1 | x) / p(z_1)] at both ends of the range, without a network.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeframe.diffusion import prior_nats, reconstruction_nats, to_pixels
from moeframe.environment import describe_environment
from moeframe.errors import UnavailableError
from moeframe.evaluation import ModelEvaluation
from moeframe.finished import load
from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.discrete import discrete_bound
from moeframe.likelihood.ode import OdeSolver, ode_likelihood
from moeframe.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe_builtin.metrics.bits_per_dim import BitsPerDimMetric
from moeframe_builtin.schedules.linear import LinearSchedule

OUT = Path(__file__).resolve().parent.parent / "results/evaluation/likelihood.json"
STREAMS = Streams(31)
LOW, HIGH = -10.0, 9.0
SCHEDULE = LinearSchedule(LinearSchedule.Config(log_snr_min=LOW, log_snr_max=HIGH))
STEPS = 256
IMAGES, DRAWS = 256, 32
MIXTURES = {
    "gaussian": ((GaussianExpert.Config(mean=0.1, std=0.25),), (1.0,)),
    "mixture": ((GaussianExpert.Config(mean=-0.4, std=0.15), GaussianExpert.Config(mean=0.4, std=0.2)), (0.4, 0.6)),
}
SHAPES = {"2 dims": ImageShape(1, 1, 2, 128), "64 dims": ImageShape(1, 8, 8, 128)}


class Case:
    """Data, their true denoiser, and what the bound of each image is in expectation."""

    def __init__(self, density: str, image: ImageShape):
        self.parts, self.shares = MIXTURES[density]
        self.image = image
        self.model: MergedDenoiser = gaussian_mixture(self.parts, self.shares, image)

    def images(self, n: int, *address: int) -> Tensor:
        chosen = torch.multinomial(
            torch.tensor(self.shares), n, replacement=True, generator=STREAMS.generator("parts", *address)
        )
        mean, std = (torch.tensor([getattr(part, key) for part in self.parts])[chosen] for key in ("mean", "std"))
        pixels = STREAMS.normal((n, *self.image.tensor_shape), "pixels", *address)
        pixels = mean.view(-1, 1, 1, 1) + std.view(-1, 1, 1, 1) * pixels
        return ((pixels + 1) * self.image.levels / 2).floor().long().clamp(0, self.image.levels - 1)

    def log_density(self, z: Tensor, log_snr: float) -> Tensor:
        """log p(z) of the noised mixture, nats per image, float64."""
        a2 = torch.sigmoid(torch.tensor(log_snr, dtype=torch.float64))
        logs = []
        for part, share in zip(self.parts, self.shares, strict=True):
            variance = a2 * part.std**2 + 1 - a2
            squares = (z - a2.sqrt() * part.mean).square().flatten(1).sum(1)
            logs.append(math.log(share) - 0.5 * (squares / variance + z[0].numel() * torch.log(2 * math.pi * variance)))
        return torch.logsumexp(torch.stack(logs), 0)

    def expected_bound(self, levels: Tensor, draws: int) -> Tensor:
        """The continuous bound of each image, bits/dim, (draws, images): only the noise at both ends is drawn."""
        x = to_pixels(levels, self.image.levels).double()
        d, found = self.image.n_dims, []
        for draw in range(draws):
            nats = prior_nats(x, torch.full((len(x),), LOW, dtype=torch.float64))
            for sign, end in ((1, HIGH), (-1, LOW)):
                s2 = 1 / (1 + math.exp(end))
                noise = STREAMS.normal(x.shape, "closed form", draw, str(end)).double()
                # antithetic: what is odd in the noise cancels
                for eps in (noise, -noise):
                    z = math.sqrt(1 - s2) * x + math.sqrt(s2) * eps
                    log_q = -0.5 * (eps.square().flatten(1).sum(1) + d * math.log(2 * math.pi * s2))
                    nats = nats + sign * 0.5 * (log_q - self.log_density(z, end))
                    if sign == 1:
                        at = torch.full((len(x),), end, dtype=torch.float64)
                        nats = nats + 0.5 * reconstruction_nats(levels, z, at, self.image.levels)
            found.append(nats / (d * math.log(2)))
        return torch.stack(found)

    def discrete_excess(self, levels: Tensor, steps: int) -> Tensor:
        """Expected discrete minus continuous bound of each image of Gaussian data, bits/dim, (1, images)."""
        (part,) = self.parts
        distance = (to_pixels(levels, self.image.levels).double() - part.mean).square().flatten(1).sum(1)

        def integrand(log_snr: Tensor) -> Tensor:
            """½ E‖ε - ε̂‖² = ½ SNR E‖x - x̂‖², (log-SNRs, images)."""
            a2, s2 = torch.sigmoid(log_snr), torch.sigmoid(-log_snr)
            k = a2.sqrt() * part.std**2 / (a2 * part.std**2 + s2)
            errors = ((1 - k * a2.sqrt()) ** 2)[:, None] * distance + (k**2 * s2)[:, None] * self.image.n_dims
            return 0.5 * log_snr.exp()[:, None] * errors

        fine = torch.linspace(LOW, HIGH, 100_001, dtype=torch.float64)
        grid = SCHEDULE.log_snr(torch.arange(steps + 1, dtype=torch.float64) / steps)
        whole = (torch.expm1(grid[:-1] - grid[1:])[:, None] * integrand(grid[1:])).sum(0)
        nats = whole - torch.trapezoid(integrand(fine), fine, dim=0)
        return (nats / (self.image.n_dims * math.log(2)))[None]


def against(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Both (draws, images): mean over draws and images, and the difference in its own Monte Carlo error."""
    one, two = found.double().mean(1), exact.mean(1)
    error = math.sqrt(float(one.var() / len(one) + two.var() / len(two)))
    deviation = float(one.mean() - two.mean())
    return {"bits_per_dim": float(one.mean()), "deviation": deviation, "error": error, "in_errors": deviation / error}


def closed_forms() -> dict[str, Any]:
    report: dict[str, Any] = {}
    for density in MIXTURES:
        for dims, image in SHAPES.items():
            case = Case(density, image)
            levels = case.images(IMAGES, 0)
            exact = case.expected_bound(levels, DRAWS)

            def items(draw: int) -> Trajectories:
                return Trajectories.numbered(STREAMS, draw * IMAGES, (draw + 1) * IMAGES)

            def draws(one: Callable[[int], Tensor]) -> Tensor:
                return torch.stack([one(draw) for draw in range(DRAWS)])

            def continuous(draw: int, case: Case = case, levels: Tensor = levels) -> Tensor:
                times = STREAMS.low_discrepancy(IMAGES, "t", draw)[STREAMS.permutation(IMAGES, "order", draw)]
                return continuous_bound(case.model, SCHEDULE, case.image, levels, times, items(draw)).total

            def discrete(draw: int, case: Case = case, levels: Tensor = levels) -> Tensor:
                times = STREAMS.low_discrepancy(IMAGES, "t", draw)[STREAMS.permutation(IMAGES, "order", draw)]
                return discrete_bound(
                    case.model, SCHEDULE, case.image, levels, times, items(draw), steps=STEPS, terms=16
                ).total

            solver = OdeSolver("dopri5", 1e-4, 1e-4)

            def ode(draw: int, case: Case = case, levels: Tensor = levels, solver: OdeSolver = solver) -> Tensor:
                return ode_likelihood(
                    case.model,
                    SCHEDULE,
                    case.image,
                    levels,
                    items(draw),
                    gate=case.model.gate,
                    dequantisation="truncated_normal",
                    divergence="exact" if case.image.n_dims <= 2 else "rademacher",
                    solver=solver,
                ).total

            report[f"{density}, {dims}"] = {
                "closed_form": float(exact.mean()),
                "continuous": against(draws(continuous), exact),
                f"discrete, {STEPS} steps": against(draws(discrete), exact),
                "ode": against(torch.stack([ode(draw) for draw in range(2)]), exact),
            }
            if density == "gaussian":
                own = exact + case.discrete_excess(levels, STEPS)
                report[f"{density}, {dims}"]["discrete, against its own closed form"] = against(draws(discrete), own)
            print(f"{density}, {dims}", json.dumps(report[f"{density}, {dims}"]), flush=True)
    return report


def standard_errors(repeats: int = 200, n: int = 64) -> dict[str, float]:
    """Mean claimed standard error over the spread, of fresh images and draws."""
    case, report = Case("mixture", SHAPES["64 dims"]), {}

    def bound(name: str, repeat: int) -> Bound:
        levels, items = case.images(n, 1, repeat), Trajectories.numbered(STREAMS, repeat * n, (repeat + 1) * n)
        times = STREAMS.low_discrepancy(n, "se", repeat)
        if name == "continuous":
            return continuous_bound(case.model, SCHEDULE, case.image, levels, times, items)
        return discrete_bound(case.model, SCHEDULE, case.image, levels, times, items, steps=64, terms=4)

    for name in ("continuous", "discrete"):
        bounds = [bound(name, repeat) for repeat in range(repeats)]
        spread = float(torch.stack([one.total.double().mean() for one in bounds]).std())
        report[name] = sum(standard_error([one]) for one in bounds) / repeats / spread
    print("standard error over spread", report, flush=True)
    return report


def variance_ratio(model: MergedDenoiser, schedule: Any, image: ImageShape, images: Callable[[int], Tensor]) -> float:
    """Variance of the mean diffusion term at 64 independent times over that at 64 low-discrepancy ones; 200 repeats."""
    variances = []
    for even in (False, True):
        means = []
        for repeat in range(200):
            items = Trajectories.numbered(STREAMS, repeat * 64, (repeat + 1) * 64)
            times = STREAMS.low_discrepancy(64, "even", repeat) if even else STREAMS.uniform((64,), "free", repeat)
            means.append(continuous_bound(model, schedule, image, images(repeat), times, items).diffusion.mean())
        variances.append(float(torch.stack(means).double().var()))
    return variances[0] / variances[1]


def analytic_variance_ratios() -> dict[str, float]:
    found = {}
    for name, image in {"64 dims": SHAPES["64 dims"], "256 dims": ImageShape(1, 16, 16, 16)}.items():
        case = Case("gaussian", image)
        found[name] = variance_ratio(case.model, SCHEDULE, image, lambda repeat, case=case: case.images(64, 2, repeat))
    print("variance ratio", found, flush=True)
    return found


METHODS = {
    "continuous": {"repeats": 8},
    "continuous, fitted density": {"repeats": 8, "importance": "fitted"},
    "discrete, 10 steps": {"method": "discrete", "steps": 10, "repeats": 2},
    "discrete, 100 steps": {"method": "discrete", "steps": 100, "repeats": 2},
    "discrete, 1000 steps, 16 terms": {"method": "discrete", "steps": 1000, "terms": 16, "repeats": 2},
    "ode, uniform": {"method": "ode", "repeats": 1},
    "ode, truncated normal": {"method": "ode", "dequantisation": "truncated_normal", "repeats": 1},
}


def trained(folder: Path) -> dict[str, Any]:
    """The methods on the test images of a trained run, and what low discrepancy saves there."""
    run = load(folder, device="cpu")
    evaluation = ModelEvaluation(run.assembly, run.denoiser, folder)
    report: dict[str, Any] = {"methods": {}}
    for name, settings in METHODS.items():
        metric = BitsPerDimMetric(BitsPerDimMetric.Config.model_validate(settings))
        try:
            found = metric.measure(evaluation)
        except UnavailableError as error:
            report["methods"][name] = {"unavailable": str(error)}
        else:
            report["methods"][name] = {
                "bits_per_dim": found.value,
                "parts": dict(found.parts),
                "network_calls_per_image": found.how["network_calls_per_image"],
            }
        print(name, json.dumps(report["methods"][name]), flush=True)
    values = {name: one["bits_per_dim"] for name, one in report["methods"].items() if "bits_per_dim" in one}
    base = values.get("continuous", math.nan)
    report["above_the_continuous_bound"] = {name: value - base for name, value in values.items()}
    ordered = ("discrete, 10 steps", "discrete, 100 steps", "discrete, 1000 steps, 16 terms")
    report["discrete_falls_with_steps"] = all(
        values[coarse] > values[fine] for coarse, fine in itertools.pairwise(ordered)
    )

    def images(repeat: int) -> Tensor:
        chosen = STREAMS.permutation(len(run.assembly.test), "trained", repeat)[:64]
        return run.assembly.test.images(chosen)

    report["variance_ratio_of_low_discrepancy_at_64"] = variance_ratio(
        run.denoiser, run.assembly.schedule, run.assembly.image, images
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a trained run, such as runs/digits")
    folder = parser.parse_args().run
    torch.set_num_threads(1)
    document = {
        "command": "python benchmarks/likelihood.py" + (f" --run {folder}" if folder else ""),
        "environment": describe_environment("cpu"),
        "unit": "bits/dim",
        "log_snr_range": [LOW, HIGH],
        "closed_forms": {
            "what": f"mean over {IMAGES} images of 128 levels; the discrete bound lies above the continuous one by "
            "the size of a step, the ODE with truncated normal dequantisation has another decoder",
            **closed_forms(),
        },
        "standard_error_over_spread": standard_errors(),
        "variance_ratio_of_low_discrepancy_at_64": analytic_variance_ratios(),
        "trained": trained(folder) if folder else None,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
