"""How often each expert is evaluated while sampling, counted on a real run."""

from dataclasses import dataclass

from moeframe.interfaces.denoiser import Denoised, Denoiser
from moeframe.interfaces.metric import Evaluation
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, LogSnr
from moeframe_builtin.metrics.support.sampling_run import sample_once

IMAGES = 16


@dataclass(frozen=True)
class Dispatch:
    """Mean counts per sampled image, over its trajectory."""

    steps: float
    """Merged evaluations; each evaluates the gate once."""
    calls: tuple[float, ...]
    """Evaluations of each expert."""


def dispatch_while_sampling(evaluation: Evaluation) -> Dispatch:
    """Counted over the first IMAGES trajectories, once per evaluation."""
    return evaluation.once(("dispatch", IMAGES), lambda: _count(evaluation))


def _count(evaluation: Evaluation) -> Dispatch:
    counting = _Counting(evaluation.denoiser, len(evaluation.experts))
    sample_once(evaluation, IMAGES, counting)
    return Dispatch(counting.items / IMAGES, tuple(calls / IMAGES for calls in counting.calls))


class _Counting:
    """A denoiser that counts its evaluations and those of its experts."""

    def __init__(self, denoiser: Denoiser, n_experts: int):
        self._denoiser = denoiser
        self.items = 0
        self.calls = [0] * n_experts

    def __call__(self, z: Images, log_snr: LogSnr, trajectories: Trajectories | None = None) -> Denoised:
        denoised = self._denoiser(z, log_snr, trajectories)
        self.items += len(z)
        for part in denoised.contributions:
            self.calls[part.expert] += len(part.items)
        return denoised
