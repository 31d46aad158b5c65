"""Likelihood: bits per dimension of test images, by a bound or by the probability-flow ODE.

VDM, Kingma et al. 2021, https://arxiv.org/abs/2107.00630; ODE, Song et al. 2021, https://arxiv.org/abs/2011.13456.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_serializer

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric, which_images
from moeframe.likelihood.probe import require_valid
from moeframe.model.mixture import MergedDenoiser
from moeframe.stats.intervals import STUDENT_FROM, Interval, normal_interval
from moeframe_builtin.metrics.support.likelihood_methods import METHODS, Method

SETTINGS = {method: frozenset(field.name for field in fields(METHODS[method])) for method in METHODS}  # type: ignore[arg-type]
"""The settings that each method takes."""


class BitsPerDimMetric(Metric):
    """-log2 p(x) per dimension of test images: VDM's bound, the discrete bound, or the probability-flow ODE."""

    ROLE = "likelihood"

    class Config(Metric.Config):
        type: Literal["bits_per_dim"] = "bits_per_dim"
        images: int | None = Field(
            default=None, ge=2, description="test images, drawn at random, the same for every seed; all if not given"
        )
        repeats: int = Field(default=4, ge=1, description="independent draws (times, noise) for every image")
        method: Literal["continuous", "discrete", "ode"] = Field(
            default="continuous",
            description="continuous or discrete variational bound, or change of variables along the ODE",
        )
        importance: Literal["uniform", "fitted"] = Field(
            default="uniform",
            description="continuous: log-SNRs drawn evenly, or more where the terms of training images scatter more",
        )
        steps: int = Field(default=1000, ge=1, description="discrete: T")
        terms: int | None = Field(
            default=None, ge=1, description="discrete: steps evaluated per image and draw; all T if not given"
        )
        dequantisation: Literal["uniform", "truncated_normal"] = Field(
            default="uniform", description="ode: noise that makes levels continuous"
        )
        divergence: Literal["rademacher", "gaussian", "exact"] = Field(
            default="rademacher", description="ode: Hutchinson's estimate of the divergence, or its exact value"
        )
        solver: Literal["dopri5", "rk4"] = Field(default="dopri5", description="ode: adaptive, or of fixed steps")
        rtol: float = Field(default=1e-5, gt=0, description="ode: relative tolerance of dopri5")
        atol: float = Field(default=1e-5, gt=0, description="ode: absolute tolerance of dopri5")
        ode_steps: int = Field(default=64, ge=1, description="ode: steps of rk4")

        @field_validator(*sorted(frozenset().union(*SETTINGS.values())))
        @classmethod
        def _of_the_method(cls, value: Any, info: Any) -> Any:
            """Runs only for settings that are given: defaults of other methods are ignored."""
            method, key = info.data.get("method"), str(info.field_name)
            if method is not None and key not in SETTINGS[method]:
                owner = next(other for other in SETTINGS if key in SETTINGS[other])
                own = ", ".join(sorted(SETTINGS[method]))
                raise ValueError(
                    f"{key!r} is a setting of method {owner!r}, but the method is {method!r}, which takes {own}; "
                    f"remove {key!r} or set method: {owner}"
                )
            return value

        @field_validator("terms")
        @classmethod
        def _at_most_all(cls, terms: int | None, info: Any) -> int | None:
            steps = info.data.get("steps")
            if terms is not None and steps is not None and terms > steps:
                raise ValueError(f"{terms} terms exceed the {steps} steps that there are; lower terms or raise steps")
            return terms

        @model_serializer(mode="wrap")
        def _without_other_methods(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
            """A dump is a valid spec, so it leaves out what the method does not take."""
            others = frozenset().union(*SETTINGS.values()) - SETTINGS[self.method]
            return {key: value for key, value in dump(self).items() if key not in others}

        @property
        def estimator(self) -> Method:
            """The method with its settings."""
            return METHODS[self.method](**{key: getattr(self, key) for key in SETTINGS[self.method]})

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images and draws; the interval is over images, the Monte Carlo error of the draws is a part.

        Raises UnavailableError where the model's number would not be a likelihood.
        """
        available, repeats = len(evaluation.test), self.config.repeats
        n = self.config.images or available
        if n > available:
            raise UnavailableError(
                f"fewer test images than requested: {available} for images: {n}; set images: {available} or fewer, or "
                "leave it out"
            )
        require_valid(
            evaluation.denoiser,
            evaluation.image,
            evaluation.schedule,
            evaluation.streams,
            evaluation.device,
            gate=evaluation.gate,
            n_items=repeats * n,
        )
        estimate = self.config.estimator.estimate(evaluation, n, repeats)
        means = torch.stack([part.mean(1) for part in estimate.parts.values()]).sum(0)
        value, error = float(means.mean()), estimate.standard_error
        jumps = evaluation.denoiser.jumps.at if isinstance(evaluation.denoiser, MergedDenoiser) else ()
        switches = {"switches_at_log_snr": list(jumps)}
        parts = {name: float(part.mean()) for name, part in estimate.parts.items()} | {"standard_error": error}
        interval = normal_interval(value, error, n)
        if STUDENT_FROM <= n < estimate.interval_from:
            needed = f"{estimate.interval_from} of {evaluation.image.n_dims} dimensions with {repeats} draw(s) each"
            interval = Interval(None, f"none: {n} images; an interval of their mean needs {needed}")
        if repeats > 1:
            parts["monte_carlo_error"] = float(means.std()) / math.sqrt(repeats)
        return Measurement(
            value=value,
            unit="bits/dim",
            better="lower",
            n=n,
            interval=interval.ends,
            parts=parts,
            how={
                "method": self.config.method,
                **estimate.how,
                "split": "test",
                "images": n,
                "chosen": which_images(n, available),
                "draws_per_image": repeats,
                "network_calls_per_image": estimate.network_calls / n,
                "log_snr_range": [evaluation.schedule.log_snr_min, evaluation.schedule.log_snr_max],
                **{key: values for key, values in switches.items() if values},
                "levels": evaluation.image.levels,
                "uniform_model": math.log2(evaluation.image.levels),
                "validity": "probed: from z and log-SNR alone, each item on its own, deterministic, finite, "
                "weights that sum to one",
                "interval_method": interval.method,
                "standard_error": estimate.error_of,
                "monte_carlo_error": "standard error of the mean over the independent draws, for these test images",
            },
        )
