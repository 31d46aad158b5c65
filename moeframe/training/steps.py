"""What one training step reports: loss terms, the errors of experts, and the part behind a value that is not finite."""

from dataclasses import dataclass
from typing import Literal

import torch

from moeframe.diffusion import bits_per_dim, diffusion_nats
from moeframe.interfaces.denoiser import Denoised
from moeframe.interfaces.loss import TrainingStep

Phase = Literal["warm_start", "joint"]


@dataclass(frozen=True)
class TermValue:
    """One loss term of one step, before its weight."""

    value: float
    unit: str
    weight: float


@dataclass(frozen=True)
class StepLog:
    """What happened in one step."""

    step: int
    phase: Phase
    objective: float
    terms: dict[str, TermValue]
    experts: list[float | None]
    """Each expert's own denoising error on the items it saw, bits/dim (bound weighting); None if it saw none."""
    gradient_norm: float
    learning_rate: float
    usage: list[float]
    """Mean gate weight of each expert over the batch."""


def mean_term(terms: list[TermValue]) -> TermValue:
    """Average one term over experts."""
    return TermValue(sum(term.value for term in terms) / len(terms), terms[0].unit, terms[0].weight)


@torch.no_grad()
def expert_errors(facts: TrainingStep, n_experts: int) -> list[float | None]:
    """Return each expert's diffusion term on the items it saw, bits/dim (VDM, eq. 11); None if it saw none."""
    errors: list[float | None] = [None] * n_experts
    for part in facts.denoised.contributions:
        log_snr = facts.log_snr[part.items]
        nats = facts.rate[part.items] * diffusion_nats(facts.velocity[part.items], part.velocity, log_snr)
        errors[part.expert] = float(bits_per_dim(nats, facts.x[0].numel()).mean())
    return errors


def culprit(denoised: Denoised, experts: list[int]) -> str:
    """Name the first part with a non-finite prediction; `experts` maps contributions to expert numbers."""
    if not bool(torch.isfinite(denoised.routing.weights).all()):
        return "the gate"
    guilty = [
        f"expert {experts[part.expert]}"
        for part in denoised.contributions
        if not bool(torch.isfinite(part.velocity).all())
    ]
    return ", ".join(guilty) or "the loss term itself"
