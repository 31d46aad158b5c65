"""Switch gate: one expert per noise level, the next one from a threshold on (https://arxiv.org/abs/2511.19434)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import ExpertErrors, Gate
from moeframe.likelihood.switching import band_of, best_thresholds
from moeframe.shapes import GateWeights, Images, LogSnr
from moeframe_builtin.gates.bands import increasing, outside


class SwitchGate(Gate):
    """The first expert in the noise (λ < η), the last on clean images (λ >= η); one expert per step."""

    LEARNS = False

    class Config(Gate.Config):
        type: Literal["switch"] = "switch"
        eta: float | tuple[float, ...] | Literal["auto"] = Field(
            default="auto",
            description="log-SNR from which the second of two experts is used; K - 1 increasing ones for K experts in "
            "order from noisy to clean; auto: those with the smallest bound on training images",
        )

        @field_validator("eta", mode="before")
        @classmethod
        def _log_snrs(cls, value: Any) -> Any:
            if value == "auto":
                return value
            several = isinstance(value, list | tuple)
            try:
                numbers = increasing([_number(item) for item in (value if several else [value])])
            except TypeError:
                raise ValueError(f"must be a log-SNR, a list of them, or auto, not {value!r}") from None
            return numbers if several else numbers[0]

        def n_evaluated(self, n_experts: int) -> int:  # noqa: ARG002
            """The one of the band."""
            return 1

        @property
        def thresholds(self) -> tuple[float, ...] | None:
            """The log-SNRs as a list; None for auto."""
            if isinstance(self.eta, str):
                return None
            return self.eta if isinstance(self.eta, tuple) else (self.eta,)

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """Thresholds that do not fit the experts or the schedule, or that cannot be known in time."""
            if self.thresholds is None:
                if facts.training_steps > 0:
                    yield (
                        "eta",
                        f"auto compares finished experts, but training.steps is {facts.training_steps}; give numbers, "
                        "or set training.steps: 0 and merge experts of finished runs",
                    )
                return
            needed = facts.n_experts - 1
            if len(self.thresholds) != needed:
                yield (
                    "eta",
                    f"{len(self.thresholds)} threshold(s) for {facts.n_experts} experts, between which there are "
                    f"{needed}; give {needed}, from noisy to clean",
                )
            yield from outside("eta", self.thresholds, facts)

    config: Config
    thresholds: Tensor

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        # float64: a threshold rounded to float32 may move past its log-SNR
        self.register_buffer("thresholds", torch.full((n_experts - 1,), math.nan, dtype=torch.float64))
        if config.thresholds is not None:
            self.switch_at(config.thresholds)

    @property
    def needs_calibration(self) -> bool:
        """True until `auto` is resolved; until then the weights are uniform."""
        return bool(self.thresholds.isnan().any())

    @property
    def switches(self) -> tuple[float, ...]:
        """The thresholds; an expert that is never used has none."""
        return tuple(dict.fromkeys(self.thresholds[self.thresholds.isfinite()].tolist()))

    def calibrate(self, errors: ExpertErrors) -> None:
        """Take the thresholds that minimise the merged bound."""
        self.switch_at(best_thresholds(errors))

    def switch_at(self, thresholds: Sequence[float]) -> None:
        """Take these thresholds."""
        assert len(thresholds) == self.n_experts - 1, "one threshold less than experts"
        self.thresholds.copy_(torch.tensor(list(thresholds), dtype=torch.float64))

    def forward(self, z: Images, log_snr: LogSnr) -> GateWeights:
        """One for the expert of the band, zero for the others."""
        chosen = F.one_hot(band_of(log_snr, self.thresholds), self.n_experts).to(z.dtype)
        return torch.where(self.thresholds.isnan().any(), 1 / self.n_experts, chosen)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    try:
        return float(value)  # a text too: YAML reads 1e1 as one
    except ValueError:
        raise TypeError(value) from None
