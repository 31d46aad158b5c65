"""Probe whether a model's number is a likelihood: it may see z and log-SNR alone, each item on its own.

A model that sees the other items of its batch, the label or the clean image bounds nothing, however good its number.
That is found by probing the model, not by trusting it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from moeframe.diffusion import add_noise, to_pixels
from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoised, Denoiser
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.continuity import declared_jumps
from moeframe.randomness import Address, Streams, Trajectories
from moeframe.shapes import Images, LogSnr

TOLERANCE = 1e-3
"""Largest difference between predictions that should be equal, relative to the largest velocity (at least 1).

Float32 in another order of summation moves them by 1e-6, TF32 and other convolution algorithms by up to some 1e-4.
"""
_ITEMS = 8
_ROUNDS = 3
_OTHER_NUMBERS = 4
_SUM_TOLERANCE = 1e-3


@torch.no_grad()
def require_valid(
    denoiser: Denoiser,
    image: ImageShape,
    schedule: NoiseSchedule,
    streams: Streams,
    device: torch.device,
    *,
    gate: Gate | None,
    n_items: int,
) -> None:
    """Raise UnavailableError, with the reason, where the model's number would not be a likelihood.

    Evaluates at log-SNRs over the schedule's range, ends included, other ones in each round and some on each side of
    every place where the model says that it jumps, for several noisy images. `n_items` is how many item numbers, from
    0, the estimate will use. A gate that declares itself `random` may depend on the item's number,
    through its draws alone: the bound then holds on average over them.
    """
    for round_ in range(_ROUNDS):
        _Probe(denoiser, image, schedule, streams, device, gate, n_items, round_).check()


@dataclass(frozen=True)
class _Batch:
    """The items of one call: what each may see, and its number."""

    z: Images
    log_snr: LogSnr
    items: Trajectories

    def take(self, which: Tensor) -> "_Batch":
        at = which.to(self.z.device)
        return _Batch(self.z[at], self.log_snr[at], Trajectories(self.items.streams, self.items.ids[which]))

    def followed_by(self, other: "_Batch") -> "_Batch":
        ids = torch.cat([self.items.ids, other.items.ids])
        z, log_snr = torch.cat([self.z, other.z]), torch.cat([self.log_snr, other.log_snr])
        return _Batch(z, log_snr, Trajectories(self.items.streams, ids))

    def numbered(self, items: Trajectories) -> "_Batch":
        return _Batch(self.z, self.log_snr, items)


@dataclass(frozen=True)
class _Probe:
    """One round of probing; every round has its own images, numbers and seeds."""

    denoiser: Denoiser
    image: ImageShape
    schedule: NoiseSchedule
    streams: Streams
    device: torch.device
    gate: Gate | None
    n_items: int
    round: int

    def check(self) -> None:
        batch = self._batch("base")
        batched = self._evaluate(batch)
        _require_finite(batched.velocity, batch.log_snr)
        if self.gate is None or self.gate.sums_to_one:
            _require_sum_of_one(batched.routing.weights, batch.log_snr)
        self._require_determinism(batch, batched)
        self._require_no_coupling(batch, batched)
        if self.gate is not None and self.gate.random:
            self._require_draws(batch)
        else:
            self._require_blind_to_numbers(batch, batched)

    def _evaluate(self, batch: _Batch) -> Denoised:
        return self.denoiser(batch.z, batch.log_snr, batch.items)

    def _batch(self, name: str) -> _Batch:
        """Random images noised to log-SNRs over the entire range."""
        shape = (_ITEMS, *self.image.tensor_shape)
        levels = (self.streams.uniform(shape, "probe/levels", name, self.round) * self.image.levels).long()
        noise = self.streams.normal(shape, "probe/noise", name, self.round)
        order = self.streams.permutation(_ITEMS, "probe/order", name, self.round)
        log_snr = self._log_snrs(name)[order]
        z = add_noise(to_pixels(levels, self.image.levels), noise, log_snr)
        return _Batch(z.to(self.device), log_snr.to(self.device), self._numbers(name))

    def _log_snrs(self, name: str) -> LogSnr:
        """One in each part of equal width, drawn again each round, the ends in the first; one between any two jumps."""
        low, high = self.schedule.log_snr_min, self.schedule.log_snr_max
        chance = self.streams.uniform((_ITEMS,), "probe/log_snr", name, self.round)
        values = high - (torch.arange(_ITEMS) + chance) / _ITEMS * (high - low)
        if self.round == 0:
            values[0], values[-1] = high, low
        jumps = sorted(at for at in declared_jumps(self.denoiser, self.gate).at if low < at < high)
        for k, (start, stop) in enumerate(pairwise([low, *jumps, high])):
            if not bool(((values > start) & (values < stop)).any()):
                i = 1 + k % (_ITEMS - 2)
                values[i] = start + chance[i] * (stop - start)
        return values

    def _numbers(self, *name: str | int) -> Trajectories:
        """Item numbers from the entire range, so that whatever depends on them (a label, say) varies."""
        chance = self.streams.uniform((_ITEMS,), "probe/numbers", *name, self.round)
        return Trajectories(self.streams, (chance.double() * self.n_items).long())

    def _require_determinism(self, batch: _Batch, batched: Denoised) -> None:
        again = self._evaluate(batch)
        change = _change(batched.velocity, again.velocity, batch.log_snr)
        if change:
            raise UnavailableError(
                f"no likelihood: two calls on the same input differ by {change}; switch dropout off (eval mode), and "
                "address random draws by `trajectories`"
            )

    def _require_no_coupling(self, batch: _Batch, batched: Denoised) -> None:
        """The same items in another order, among others, and alone."""
        order, half = torch.arange(_ITEMS).flip(0), _ITEMS // 2
        others, first, last = self._batch("companions"), torch.arange(half), torch.arange(half, _ITEMS)
        trials = [("its batch is reordered", batch.take(order), order)]
        trials += [
            ("its companions change", batch.take(kept).followed_by(others.take(last)), kept) for kept in (first, last)
        ]
        trials += [("it is alone", batch.take(kept), kept) for kept in (first[:1], last[-1:])]
        for what, trial, kept in trials:
            found = self._evaluate(trial).velocity[: len(kept)]
            kept_here = kept.to(self.device)
            change = _change(batched.velocity[kept_here], found, batch.log_snr[kept_here])
            if change:
                raise UnavailableError(
                    f"no likelihood: an item's prediction changes by {change} when {what}; predict each item on its "
                    "own, without statistics of the batch"
                )

    def _require_blind_to_numbers(self, batch: _Batch, batched: Denoised) -> None:
        """The same z and log-SNR under other item numbers, and under another seed."""
        for trial in range(_OTHER_NUMBERS):
            ids = self._numbers("other", trial).ids
            items = Trajectories(Streams(self.streams.seed + trial % 2), ids)
            found = self._evaluate(batch.numbered(items))
            # The weights as well: untrained experts all predict the same.
            change = _change(batched.velocity, found.velocity, batch.log_snr)
            change = change or _change(batched.routing.weights, found.routing.weights, batch.log_snr)
            if change:
                raise UnavailableError(
                    f"no likelihood: for the same noisy image and log-SNR the prediction changes by {change} with the "
                    "item's number, so the model sees more than these two (its label, say); a gate that draws from "
                    "`trajectories` must declare itself `random`"
                )

    def _require_draws(self, batch: _Batch) -> None:
        """A random gate may use the item's number for draws alone: items with equal draws are treated equally."""
        alike = [
            self._evaluate(batch.numbered(_SameDraws(self.streams, ids)))
            for ids in (batch.items.ids, *(self._numbers("other", trial).ids for trial in range(_OTHER_NUMBERS)))
        ]
        for found in alike[1:]:
            change = _change(alike[0].routing.weights, found.routing.weights, batch.log_snr)
            change = change or _change(alike[0].velocity, found.velocity, batch.log_snr)
            if change:
                raise UnavailableError(
                    "no likelihood: the gate declares itself `random`, but for the same draws the prediction changes "
                    f"by {change} with the item's number, so the model sees more than them (its label, say); draw by "
                    "the methods of `trajectories` alone"
                )


class _SameDraws(Trajectories):
    """Items that all draw as number 0 does; what differs between two of them is not a draw."""

    def normal(self, shape: Sequence[int], purpose: str, *address: Address) -> Tensor:
        return self._first().normal(shape, purpose, *address)

    def choice(self, n: int, purpose: str, per: Tensor | None = None) -> Tensor:
        return self._first().choice(n, purpose, per)

    def _first(self) -> Trajectories:
        return Trajectories(self.streams, torch.zeros_like(self.ids))


def _require_finite(velocity: Images, log_snr: LogSnr) -> None:
    bad = ~velocity.flatten(1).isfinite().all(1)
    if bool(bad.any()):
        raise UnavailableError(
            f"no likelihood: the prediction is not finite at log-SNR {float(log_snr[bad][0]):g}; look at the learning "
            "curves, or narrow the schedule's log_snr_min / log_snr_max"
        )


def _require_sum_of_one(weights: Tensor, log_snr: LogSnr) -> None:
    sums = weights.sum(1)
    worst = int((sums - 1).abs().argmax())
    if not abs(float(sums[worst]) - 1) <= _SUM_TOLERANCE:
        raise UnavailableError(
            f"no likelihood: the gate's weights sum to {float(sums[worst]):.4g} at log-SNR {float(log_snr[worst]):g}, "
            "though it declares that they sum to one; normalise them, or return False from `sums_to_one`"
        )


def _change(before: Tensor, after: Tensor, log_snr: LogSnr) -> str:
    """How far velocities or weights that should be equal differ, and where; empty within the tolerance."""
    gaps = (before - after).abs().flatten(1).amax(1) / max(1.0, float(before.abs().max()))
    worst = int(gaps.nan_to_num(nan=torch.inf).argmax())
    if float(gaps[worst]) <= TOLERANCE:
        return ""
    return f"{float(gaps[worst]):.1e} of the largest value at log-SNR {float(log_snr[worst]):g}"
