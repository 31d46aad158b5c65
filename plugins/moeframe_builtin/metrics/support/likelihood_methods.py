"""Three ways to estimate -log2 p(x) of test images, each with its own settings."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from moeframe.interfaces.metric import Evaluation
from moeframe.likelihood.bound import Bound, standard_error
from moeframe.likelihood.continuity import require_continuous
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.discrete import discrete_bound
from moeframe.likelihood.importance import PILOT_IMAGES, LogSnrDensity, fit_density
from moeframe.likelihood.ode import OdeLikelihood, OdeSolver, ode_likelihood
from moeframe.randomness import Trajectories
from moeframe.shapes import Levels, Times
from moeframe.stats.intervals import STUDENT_FROM

NOISY_VALUES = 1920
"""Images x dimensions x draws from which a bound's interval covers: 30 images of 64 dimensions, 960 of 2.

Each value has the noise of few noise levels, whose skewness averages out over dimensions, draws and images alike.
"""

BoundOf = Callable[[Levels, Times, Trajectories], Bound]


@dataclass(frozen=True)
class Estimate:
    """What a method found: each part of the value for every draw of every image, bits/dim."""

    parts: Mapping[str, Tensor]
    """(draws, images) each; the value is the mean of their sum."""
    standard_error: float
    network_calls: int
    """Expert evaluations spent, pilot included, summed over images and draws."""
    error_of: str
    """How the standard error was found."""
    interval_from: int
    """Images from which it makes an interval that covers 93.5 to 96.5 % in simulations."""
    how: Mapping[str, Any]


class Method(ABC):
    """An estimator of bits/dim; its fields are the settings of the metric that it takes."""

    @abstractmethod
    def estimate(self, evaluation: Evaluation, n: int, repeats: int) -> Estimate:
        """`repeats` draws of each of n test images. Raises UnavailableError where it does not apply."""


@dataclass(frozen=True)
class ContinuousBound(Method):
    """VDM's bound in continuous time, one log-SNR per image and draw."""

    importance: Literal["uniform", "fitted"]

    def estimate(self, evaluation: Evaluation, n: int, repeats: int) -> Estimate:
        """A draw costs one prediction; a fitted density also costs a pilot of up to 512 training images."""
        pilot = _pilot(evaluation, repeats * n) if self.importance == "fitted" else None
        density = LogSnrDensity.uniform(evaluation.schedule)
        if pilot is not None:
            density = fit_density(pilot, evaluation.schedule)

        def bound_of(levels: Levels, times: Times, items: Trajectories) -> Bound:
            return continuous_bound(
                evaluation.denoiser, evaluation.schedule, evaluation.image, levels, times, items, density
            )

        how: dict[str, Any] = {
            "estimator": "continuous-time variational bound (VDM): reconstruction + prior + diffusion",
            "times": "low-discrepancy over the split, uniform in log-SNR",
            "importance": self.importance,
        }
        if pilot is not None:
            how |= {
                "times": "low-discrepancy over the split, through the inverse CDF of the fitted density of log-SNR",
                "pilot": f"{len(pilot.log_snr)} training images",
                "density": {"edges": list(density.edges), "masses": list(density.masses)},
            }
        return _of_bounds(
            _draws(evaluation, n, repeats, bound_of), how, pilot.network_calls if pilot else 0, evaluation.image.n_dims
        )


@dataclass(frozen=True)
class DiscreteBound(Method):
    """The bound over a stated number of steps: all of its terms, or some of them."""

    steps: int
    terms: int | None

    def estimate(self, evaluation: Evaluation, n: int, repeats: int) -> Estimate:
        """A draw costs as many predictions as it has terms."""
        terms = self.terms or self.steps

        def bound_of(levels: Levels, times: Times, items: Trajectories) -> Bound:
            e = evaluation
            return discrete_bound(e.denoiser, e.schedule, e.image, levels, times, items, steps=self.steps, terms=terms)

        how = {
            "estimator": "discrete-time variational bound (VDM, eq. 13): reconstruction + prior + diffusion; each "
            "step's divergence is improved DDPM's with the posterior's variance, the last step is a decoder at the "
            "largest log-SNR in place of its L_0",
            "steps": self.steps,
            "terms_per_draw": terms,
            "times": "all steps"
            if terms == self.steps
            else "one step of each of equal runs, low-discrepancy over the split",
            "step_grid": "the schedule's log-SNR at i / steps",
        }
        return _of_bounds(_draws(evaluation, n, repeats, bound_of), how, 0, evaluation.image.n_dims)


@dataclass(frozen=True)
class ProbabilityFlowOde(Method):
    """Change of variables along the probability-flow ODE, on dequantised images."""

    dequantisation: Literal["uniform", "truncated_normal"]
    divergence: Literal["rademacher", "gaussian", "exact"]
    solver: Literal["dopri5", "rk4"]
    rtol: float
    atol: float
    ode_steps: int

    def estimate(self, evaluation: Evaluation, n: int, repeats: int) -> Estimate:
        """A draw costs as many predictions as its solver needs. Raises UnavailableError for a model that jumps."""
        e = evaluation
        require_continuous(e.denoiser, e.image, e.schedule, e.streams, e.device, gate=e.gate)
        found = [
            [self._likelihood(evaluation, levels, items) for levels, items in _batches(evaluation, n, repeat)]
            for repeat in range(repeats)
        ]
        draws = [batch for draw in found for batch in draw]
        parts = {
            part: torch.stack([torch.cat([getattr(batch, part).double().cpu() for batch in draw]) for draw in found])
            for part in ("prior", "volume", "dequantisation")
        }
        per_image = sum(parts.values(), torch.zeros(())).mean(0)
        return Estimate(
            parts=parts,
            standard_error=float(per_image.std()) / math.sqrt(n),
            network_calls=sum(batch.network_calls for batch in draws),
            error_of="over test images, the mean of the draws of each",
            interval_from=STUDENT_FROM,
            how={
                "estimator": "probability-flow ODE (Score SDE): prior + volume + dequantisation",
                "dequantisation": self.dequantisation,
                "divergence": self.divergence,
                "solver": {"method": self.solver}
                | ({"steps": self.ode_steps} if self.solver == "rk4" else {"rtol": self.rtol, "atol": self.atol}),
                "function_evaluations_per_batch": sum(batch.function_evaluations for batch in draws) / len(draws),
                "backward_passes_per_evaluation": evaluation.image.n_dims if self.divergence == "exact" else 1,
                "continuity": "probed between noisy images and over log-SNR, away from the stated switches",
            },
        )

    def _likelihood(self, evaluation: Evaluation, levels: Levels, items: Trajectories) -> OdeLikelihood:
        return ode_likelihood(
            evaluation.denoiser,
            evaluation.schedule,
            evaluation.image,
            levels,
            items,
            gate=evaluation.gate,
            dequantisation=self.dequantisation,
            divergence=self.divergence,
            solver=OdeSolver(self.solver, self.rtol, self.atol, self.ode_steps),
        )


METHODS: Mapping[str, type[Method]] = {
    "continuous": ContinuousBound,
    "discrete": DiscreteBound,
    "ode": ProbabilityFlowOde,
}


def _of_bounds(bounds: list[Bound], how: Mapping[str, Any], pilot_calls: int, n_dims: int) -> Estimate:
    parts = {
        part: torch.stack([getattr(bound, part).double().cpu() for bound in bounds])
        for part in ("reconstruction", "prior", "diffusion")
    }
    calls = pilot_calls + sum(bound.network_calls for bound in bounds)
    return Estimate(
        parts=parts,
        standard_error=standard_error(bounds),
        network_calls=calls,
        interval_from=max(STUDENT_FROM, math.ceil(NOISY_VALUES / (n_dims * len(bounds)))),
        error_of="over test images; each draw against those at neighbouring noise levels, because the times of a draw "
        "are low-discrepancy",
        how=how,
    )


def _draws(evaluation: Evaluation, n: int, repeats: int, bound_of: BoundOf) -> list[Bound]:
    """The bound of n test images, with new times and noise in each repeat."""
    bounds = []
    for repeat in range(repeats):
        times = _times(evaluation, n, repeat)
        parts, start = [], 0
        for levels, items in _batches(evaluation, n, repeat):
            parts.append(bound_of(levels, times[start : start + len(levels)].to(evaluation.device), items))
            start += len(levels)
        bounds.append(Bound.concatenate(parts))
    return bounds


def _times(evaluation: Evaluation, n: int, repeat: int) -> Times:
    times = evaluation.streams.low_discrepancy(n, "bits_per_dim/times", repeat)
    # neighbouring images (of one folder, say) must not get neighbouring noise levels
    return times[evaluation.streams.permutation(n, "bits_per_dim/order", repeat)]


def _batches(evaluation: Evaluation, n: int, repeat: int) -> Iterator[tuple[Levels, Trajectories]]:
    for start, levels in evaluation.test_batches(n):
        first = repeat * n + start
        items = Trajectories.numbered(evaluation.streams, first, first + len(levels))
        yield levels.to(evaluation.device), items


def _pilot(evaluation: Evaluation, first: int) -> Bound:
    """Terms of training images at uniform log-SNRs; `first` is the number of the first, past those of the estimate."""
    e, n = evaluation, min(PILOT_IMAGES, len(evaluation.train))
    chosen = e.streams.permutation(len(e.train), "bits_per_dim/pilot")[:n]
    times = e.streams.low_discrepancy(n, "bits_per_dim/pilot_times")
    size = next(len(levels) for _, levels in e.test_batches(None))  # as many as fit into memory at once
    parts = []
    for start in range(0, n, size):
        levels = e.train.images(chosen[start : start + size]).to(e.device)
        items = Trajectories.numbered(e.streams, first + start, first + start + len(levels))
        own_times = times[start : start + len(levels)].to(e.device)
        parts.append(continuous_bound(e.denoiser, e.schedule, e.image, levels, own_times, items))
    return Bound.concatenate(parts)
