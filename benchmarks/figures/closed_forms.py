"""Errors of the three likelihood methods on Gaussian and mixture data in 2 and 64 dimensions.

The engine's own functions are evaluated at the nodes of a quadrature instead of at random noise and times, so that
their estimates have no Monte Carlo error, and compared with formulas that share no code with them.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from figures.densities import Array, Mixture, decoder_nats, noise_nodes, prior_nats
from figures.merging import STREAMS, Values
from torch import Tensor

from moeframe.interfaces.component import ImageShape
from moeframe.likelihood.bound import end_terms
from moeframe.likelihood.continuous import continuous_bound
from moeframe.likelihood.dequantisation import dequantise
from moeframe.likelihood.discrete import discrete_bound
from moeframe.likelihood.ode import OdeSolver, ode_likelihood
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe_builtin.schedules.linear import LinearSchedule

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/support"))

from small_likelihood import GivenNoise, OtherRange

LEVELS, STEPS = 32, 64
LOW, HIGH = -8.0, 7.0
WIDE = (-16.0, 14.0)
"""Log-SNRs over which the model's density is the data's to 1e-3 bits/dim."""
DENSITIES = {
    "Gaussian": Mixture((0.1,), (0.25,), (1.0,)),
    "mixture": Mixture((-0.4, 0.4), (0.15, 0.2), (0.4, 0.6)),
}
SHAPES = {2: ImageShape(1, 1, 2, LEVELS), 64: ImageShape(1, 8, 8, LEVELS)}
TIGHT = OdeSolver(rtol=1e-9, atol=1e-9, network_dtype=torch.float64)


@contextmanager
def double_precision() -> Iterator[None]:
    """Pixels and networks in float64 within the block."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@dataclass(frozen=True)
class Case:
    """Data, their true denoiser, and a few images."""

    density: Mixture
    image: ImageShape

    @property
    def model(self) -> MergedDenoiser:
        parts = zip(self.density.means, self.density.stds, strict=True)
        slices = [GaussianExpert.Config(mean=mean, std=std) for mean, std in parts]
        return gaussian_mixture(slices, self.density.shares, self.image)

    def levels(self, n: int, *address: int) -> Tensor:
        """Images drawn from the density, (n, channels, height, width), others for another address."""
        shares = torch.tensor(self.density.shares)
        part = torch.multinomial(shares, n, replacement=True, generator=STREAMS.generator("part", *address))
        mean, std = (torch.tensor(values)[part].view(-1, 1, 1, 1) for values in (self.density.means, self.density.stds))
        pixels = mean + std * STREAMS.normal((n, *self.image.tensor_shape), "pixels", *address)
        return ((pixels + 1) * LEVELS / 2).floor().long().clamp(0, LEVELS - 1)

    def pixels(self, levels: Tensor) -> Array:
        """Bin centres, (images, dims)."""
        return ((2 * levels.flatten(1).double() + 1) / LEVELS - 1).numpy()

    def expected_bound(self, levels: Tensor, steps: int | None = None) -> float:
        """The continuous bound of one image, or that of T steps, in expectation, bits/dim; in numpy alone.

        Continuous: E log q(z|x) / p(z) at both ends of the range, where I-MMSE leaves no integral. Discrete: the sum
        over the steps, with the score of the noised density.
        """
        (x,) = self.pixels(levels)
        ends = sum(decoder_nats(level, LEVELS, HIGH) for level in levels.flatten().tolist()) + prior_nats(x, LOW)
        if steps is None:
            clean, noisy = (self.density.divergence_from_density(x, end) for end in (HIGH, LOW))
            return self.in_bits(ends + clean - noisy)
        grid = np.linspace(HIGH, LOW, steps + 1).tolist()
        terms = (math.expm1(s - t) * self.density.denoising_nats(x, t) for s, t in pairwise(grid))
        return self.in_bits(ends + sum(terms))

    def diffusion(self, levels: Tensor, low: float, high: float, steps: int | None = None) -> float:
        """The engine's expected diffusion term of one image, bits/dim: the continuous one, or that of T steps."""
        noise, chance = (torch.tensor(part) for part in noise_nodes(self.pixels(levels)[0]))
        many = levels.expand(len(noise), -1, -1, -1)
        items = GivenNoise(STREAMS, torch.arange(len(noise)), noise)
        schedule = line(low, high)
        if steps is not None:
            found = discrete_bound(
                self.model, schedule, self.image, many, torch.zeros(len(many)), items, steps=steps, terms=steps
            )
            return float((chance * found.diffusion).sum())
        total = 0.0
        nodes, weights = np.polynomial.legendre.leggauss(int(5 * (high - low)))
        for time, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            times = torch.full((len(many),), float(time))
            bound = continuous_bound(self.model, schedule, self.image, many, times, items)
            total += float(weight) * float((chance * bound.diffusion).sum())
        return total

    def ends(self, levels: Tensor) -> tuple[float, float]:
        """The engine's expected decoder and prior term of one image, bits/dim."""
        noise = torch.linspace(-9, 9, 401)
        many = levels.expand(len(noise), -1, -1, -1)
        items = GivenNoise(STREAMS, torch.arange(len(noise)), noise[:, None].expand(-1, self.image.n_dims))
        found = end_terms(line(LOW, HIGH), self.image, many, items)
        return float((torch.softmax(-0.5 * noise**2, 0) * found.reconstruction).sum()), float(found.prior[0])

    def in_bits(self, nats: float) -> float:
        return nats / (self.image.n_dims * math.log(2))


def cases() -> Iterator[tuple[str, Case]]:
    for name, density in DENSITIES.items():
        for dims, image in SHAPES.items():
            yield f"{name}, {dims} dims", Case(density, image)


def line(low: float, high: float) -> LinearSchedule:
    return LinearSchedule(LinearSchedule.Config(log_snr_min=low, log_snr_max=high))


def bounds_against_closed_forms() -> Values:
    """Bits/dim between the expected bounds of an image, by quadrature through the engine, and closed forms in numpy.

    The continuous one and that of 64 steps, decoder and prior included; the larger of two images.
    """
    found: Values = {}
    with double_precision():
        for name, case in cases():
            differences: dict[str, list[float]] = {"continuous": [], "discrete": []}
            for levels in case.levels(2).split(1):
                for method, steps in (("continuous", None), ("discrete", STEPS)):
                    found_here = sum(case.ends(levels)) + case.diffusion(levels, LOW, HIGH, steps)
                    differences[method].append(abs(found_here - case.expected_bound(levels, steps)))
            found |= {f"{method}: {name}": max(values) for method, values in differences.items()}
    return found


def ode_against_an_independent_flow() -> Values:
    """Largest difference, bits/dim, of the ODE's likelihood of four dequantised images from scipy's DOP853.

    Ours: dopri5 in float64 at 1e-9, exact divergence by automatic differentiation; the other: score and Laplacian of
    the noised density written out, at 1e-12.
    """
    return {name: float(np.abs(ours - other).max()) for name, ours, other in _flows(LOW, HIGH, against_density=False)}


def methods_over_a_wide_range_against_the_density() -> Values:
    """Bits/dim between two methods over log-SNRs from -16 to 14 and the true density of the data at the same points.

    The ODE's of four dequantised images; the continuous bound of one image, whose decoder of levels is replaced by the
    Gaussian N(x; z/α, σ²/α²), without which it is not a density.
    """
    found: Values = {
        f"ode: {name}": float(np.abs(ours - other).max()) for name, ours, other in _flows(*WIDE, against_density=True)
    }
    low, high = WIDE
    with double_precision():
        for name, case in cases():
            levels = case.levels(1)
            x = case.pixels(levels)
            decoder = 0.5 * case.image.n_dims * (math.log(2 * math.pi * math.e) - high)
            bound = case.diffusion(levels, low, high) + case.in_bits(decoder + prior_nats(x[0], low))
            found[f"continuous: {name}"] = abs(bound + case.in_bits(float(case.density.log_density(x)[0])))
    return found


def _flows(low: float, high: float, *, against_density: bool) -> Iterator[tuple[str, Array, Array]]:
    """-log2 density per dimension, by the engine and by the other way, of each case."""
    schedule = line(low, high)
    for name, case in cases():
        levels = case.levels(4)
        items = Trajectories.numbered(STREAMS, 0, 4)
        model = case.model
        with double_precision():
            own = ode_likelihood(
                model, schedule, case.image, levels, items, gate=model.gate, divergence="exact", solver=TIGHT
            )
            x = dequantise(levels, LEVELS, "uniform", high, items).pixels.flatten(1).double().numpy()
        density = case.density
        other = (
            -density.log_density(x) / (x.shape[1] * math.log(2)) if against_density else density.flow_bits(x, low, high)
        )
        yield name, (own.prior + own.volume).numpy(), other


def bits_in_other_data_ranges() -> Values:
    """Largest difference, bits/dim, of any of 8 images when the networks live on pixels a x + b instead of [-1, 1]."""
    image = ImageShape(1, 4, 4, 32)
    levels = (STREAMS.uniform((8, *image.tensor_shape), "levels") * 32).long()
    items, schedule = Trajectories.numbered(STREAMS, 0, 8), line(LOW, HIGH)
    found: Values = {}
    with double_precision():
        times = STREAMS.low_discrepancy(8, "t").double()

        def bits(model: OtherRange) -> dict[str, Tensor]:
            gate = model.native.gate
            return {
                "continuous": continuous_bound(model, schedule, image, levels, times, items).total,
                "discrete": discrete_bound(model, schedule, image, levels, times, items, steps=30, terms=30).total,
                "ode": ode_likelihood(
                    model, schedule, image, levels, items, gate=gate, divergence="exact", solver=TIGHT
                ).total,
            }

        same = bits(OtherRange(1.0, 0.0, image))
        for a, b in ((0.5, 0.5), (127.5, 127.5), (3.0, -7.0)):
            for method, other in bits(OtherRange(a, b, image)).items():
                found[f"{method}, {a:g} x {b:+g}"] = float((same[method] - other).abs().max())
    return found
