"""Probe whether a model is a continuous function of the noisy image, as the change of variables needs."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from moeframe.diffusion import add_noise, to_pixels
from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.expert import Jumps
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams, Trajectories
from moeframe.shapes import Images, LogSnr

_ITEMS = 8
_SEGMENTS = 4
"""Between two noisy images; twice as many over each piece of the log-SNR range."""
_HALVINGS = 16
_MARGIN = 1e-4
"""Share of a piece that is skipped at its ends: in float32 a jump at an end may fall on either side."""
_JUMP = 0.02
"""Change of a velocity, relative to the largest or to 1, or of a weight, that 16 halvings have to bring below."""


def declared_jumps(denoiser: Denoiser, gate: Gate | None) -> Jumps:
    """What the model declares; `gate` is that of a denoiser that is not a MergedDenoiser."""
    if isinstance(denoiser, MergedDenoiser):
        return denoiser.jumps
    return Jumps() if gate is None else Jumps("" if gate.continuous else f"gate {gate.name()}", gate.switches)


def stated_jumps(denoiser: Denoiser, gate: Gate | None) -> tuple[float, ...]:
    """The log-SNRs at which the model declares a jump. Raises UnavailableError where jumps depend on the image."""
    jumps = declared_jumps(denoiser, gate)
    if jumps.anywhere:
        raise UnavailableError(
            f"the weights of {jumps.anywhere} jump, and the change of variables does not hold where the flow jumps; "
            "use method: continuous, whose bound needs no continuity"
        )
    return jumps.at


@torch.no_grad()
def require_continuous(
    denoiser: Denoiser,
    image: ImageShape,
    schedule: NoiseSchedule,
    streams: Streams,
    device: torch.device,
    *,
    gate: Gate | None,
) -> None:
    """Raise UnavailableError where the model jumps at a log-SNR that it does not declare.

    Between pairs of noisy images, and between log-SNRs on one side of the stated ones, the largest change is closed in
    on by halving: a continuous model's shrinks with the distance, a jump's stays. What is not met on these ways is not
    found.
    """
    stated, low, high = stated_jumps(denoiser, gate), schedule.log_snr_min, schedule.log_snr_max
    if not (math.isfinite(low) and math.isfinite(high)):
        return  # the ODE never reaches it
    items = Trajectories.numbered(streams, 0, _ITEMS)
    shape = (2, _ITEMS, *image.tensor_shape)
    levels = (streams.uniform(shape, "continuity/levels") * image.levels).long()
    noise, chance = streams.normal(shape, "continuity/noise"), streams.uniform((_ITEMS,), "continuity/log_snr")
    log_snr = high - (torch.arange(_ITEMS) + chance) / _ITEMS * (high - low)
    one, other = (
        add_noise(to_pixels(each, image.levels), drawn, log_snr).to(device)
        for each, drawn in zip(levels, noise, strict=True)
    )
    log_snr = log_snr.to(device)
    size = max(1.0, float(denoiser(one, log_snr, items).velocity.abs().max()))

    def ask(z: Images, at: LogSnr) -> Tensor:
        answer = denoiser(z, at, items)
        return torch.cat([answer.velocity.flatten(1) / size, answer.routing.weights], dim=1)

    def left_over(start: Images, stop: Images, first: LogSnr, last: LogSnr) -> float:
        """Of the change of each item, when the half with more of it is kept again and again."""
        at_start, at_stop = ask(start, first), ask(stop, last)
        for _ in range(_HALVINGS):
            z, between = (start + stop) / 2, (first + last) / 2
            middle = ask(z, between)
            left = (middle - at_start).abs().amax(1) > (at_stop - middle).abs().amax(1)
            wide, flat = left.view(-1, 1, 1, 1), left[:, None]
            start, stop = torch.where(wide, start, z), torch.where(wide, z, stop)
            first, last = torch.where(left, first, between), torch.where(left, between, last)
            at_start, at_stop = torch.where(flat, at_start, middle), torch.where(flat, middle, at_stop)
        return float((at_stop - at_start).abs().max())

    cuts = torch.linspace(0, 1, _SEGMENTS + 1).tolist()
    ways = [one + cut * (other - one) for cut in cuts]
    _refuse(max(left_over(a, b, log_snr, log_snr) for a, b in pairwise(ways)), "from one noisy image to the next")
    for start, stop in pairwise([low, *sorted(at for at in stated if low < at < high), high]):
        margin = _MARGIN * (stop - start)
        grid = torch.linspace(start + margin, stop - margin, 2 * _SEGMENTS + 1, device=device)
        found = max(left_over(one, one, a.expand(_ITEMS), b.expand(_ITEMS)) for a, b in pairwise(grid))
        _refuse(found, f"between log-SNR {start:g} and {stop:g}")


def _refuse(change: float, where: str) -> None:
    if not change <= _JUMP:
        raise UnavailableError(
            f"the model jumps {where}, by {change:.2g} of its largest value however near two inputs come, and does not "
            "say so: the change of variables does not hold there; use method: continuous, whose bound needs no "
            "continuity, or let the gate state its `switches`"
        )
