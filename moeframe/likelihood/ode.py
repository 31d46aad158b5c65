"""-log2 p(x) by the probability-flow ODE, in bits per dimension (Song et al. 2021, Score SDE, section 4.3).

By λ the scales change as α' = ½ α σ² and σ' = -½ σ α², and so the flow of the model's density is

    dz/dλ = α' x̂ + σ' ε̂ = -½ α σ v̂(z, λ).

From z_λmax = α_max x̃ it leads to λmin, and the change of variables on the way gives

    log p(x̃) = log N(z_λmin; 0, I) + ∫ tr(∂/∂z dz/dλ) dλ from λmax to λmin + D log α_max.

Song et al. 2021, https://arxiv.org/abs/2011.13456; Hutchinson's estimator in flows, Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchdiffeq import odeint  # type: ignore[import-untyped]

from moeframe.diffusion import alpha, bits_per_dim, sigma
from moeframe.errors import NonFiniteError, UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.likelihood.continuity import stated_jumps
from moeframe.likelihood.dequantisation import Dequantisation, dequantise
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, Levels, PerItem, Scalar

DivergenceEstimate: TypeAlias = Literal["rademacher", "gaussian", "exact"]
"""Hutchinson's estimate with random signs or with normal probes, or one backward pass per dimension."""

Directions: TypeAlias = Float[Tensor, "directions batch channels height width"]

MOST_EXACT_DIMS = 256
MOST_STEPS = 10_000


@dataclass(frozen=True)
class OdeSolver:
    """How the flow is integrated. The state is float64; the denoiser is evaluated in its own dtype."""

    method: Literal["dopri5", "rk4"] = "dopri5"
    """Adaptive steps of order 5, or equal steps in log-SNR of order 4 (the 3/8 rule)."""
    rtol: float = 1e-5
    atol: float = 1e-5
    """dopri5: error allowed in a step, of z as a root mean square over an image and of its volume in bits/dim."""
    steps: int = 64
    """rk4: steps over the entire range, four evaluations each; every piece between switches has at least one."""
    network_dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class OdeLikelihood:
    """The parts of -log2 p(x) per image, bits/dim, float64; they add up to `total`."""

    prior: PerItem
    """-log2 N(z_λmin; 0, I)."""
    volume: PerItem
    """Change of volume by the flow and the scaling by α_max: -log2 |det ∂z_λmin / ∂x̃|."""
    dequantisation: PerItem
    """-H(q) in bits/dim, the cost of dequantisation; positive for narrow bins."""
    function_evaluations: int
    """Number of evaluations of the flow, each of the entire batch."""
    network_calls: int
    """Expert evaluations, summed over the items of the batch; the backward passes come on top."""

    @property
    def total(self) -> PerItem:
        """-log2 p(x̃) plus the cost of dequantisation: in expectation an upper bound on -log2 P(x) / D."""
        return self.prior + self.volume + self.dequantisation


@torch.no_grad()
def ode_likelihood(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    image: ImageShape,
    levels: Levels,
    items: Trajectories,
    *,
    gate: Gate | None,
    dequantisation: Dequantisation = "uniform",
    divergence: DivergenceEstimate = "rademacher",
    solver: OdeSolver = OdeSolver(),
) -> OdeLikelihood:
    """One draw of the dequantised image, and of the probe of its divergence, followed from λmax to λmin.

    `gate` is the gate inside a `denoiser` that is not a MergedDenoiser, which itself declares its jumps; None for a
    single expert. Its gradient is part of the divergence, and the way is cut into pieces where it switches. Draws are
    addressed by `items`, so an image has the same ones in every batch. The adaptive solver however takes one step for
    all, as long as the most demanding image allows: its result depends on the batch within its tolerance; that of `rk4`
    does not.

    Raises UnavailableError for a gate that is not continuous, for `exact` in more than 256 dimensions, for a range of
    log-SNR that is not finite and where the solver gives up; NonFiniteError for a prediction that is not a number.
    """
    jumps = stated_jumps(denoiser, gate)
    low, high = schedule.log_snr_min, schedule.log_snr_max
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UnavailableError(
            f"the ODE needs a finite log-SNR range, not {low:g} .. {high:g}; "
            "set the schedule's log_snr_min / log_snr_max"
        )
    dequantised = dequantise(levels, image.levels, dequantisation, high, items)
    log_alpha = 0.5 * float(F.logsigmoid(torch.tensor(high, dtype=torch.float64)))
    z = math.exp(log_alpha) * dequantised.pixels
    flow = _Flow(denoiser, items, _directions(divergence, image, items).to(z.device, solver.network_dtype))

    volume = torch.full_like(z[:, 0, 0, 0], -log_alpha / math.log(2))
    switches = {switch for switch in jumps if low < switch < high}
    for start, stop in pairwise([high, *sorted(switches, reverse=True), low]):
        z, growth = _follow(flow, z, start, stop, solver, share=(start - stop) / (high - low))
        volume = volume - growth

    prior = 0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return OdeLikelihood(
        prior=bits_per_dim(prior, image.n_dims),
        volume=volume,
        dequantisation=torch.full_like(volume, dequantised.bits_per_dim),
        function_evaluations=flow.function_evaluations,
        network_calls=flow.network_calls,
    )


@dataclass
class _Flow:
    """The derivative of z and of its volume by log-SNR, and the cost so far."""

    denoiser: Denoiser
    items: Trajectories
    directions: Directions
    function_evaluations: int = 0
    network_calls: int = 0

    def slope(self, z: Images, log_snr: Scalar, at: Scalar) -> tuple[Images, PerItem]:
        """(dz/dλ, its divergence in bits/dim) at λ = `log_snr`, by the denoiser's prediction at `at`, in its dtype."""
        with torch.enable_grad():
            leaf = z.detach().to(at.dtype).requires_grad_()
            denoised = self.denoiser(leaf, at.expand(len(z)), self.items)
            trace = _trace(denoised.velocity, leaf, self.directions)
        self.function_evaluations += 1
        self.network_calls += denoised.network_calls
        if not (denoised.velocity.isfinite().all() and trace.isfinite().all()):
            raise NonFiniteError(
                f"the velocity or its divergence is not a number at log-SNR {float(at):g}: see the learning curves; "
                "train with a smaller learning rate, or narrow the schedule's range"
            )
        rate = -0.5 * alpha(log_snr) * sigma(log_snr)
        return rate * denoised.velocity.detach().to(z.dtype), bits_per_dim(rate * trace.to(z.dtype), z[0].numel())


def _follow(
    flow: _Flow, z: Images, start: float, stop: float, solver: OdeSolver, share: float
) -> tuple[Images, PerItem]:
    """z at log-SNR `stop` < `start`, and the integral of the divergence on the way, bits/dim."""
    # The denoiser is evaluated inside the piece only: its ends may be on the other side of a switch, and the solver
    # looks beyond them when it chooses its first step.
    bounds = torch.tensor([stop, start], dtype=solver.network_dtype, device=z.device)
    inside = torch.nextafter(bounds, bounds.flip(0))

    def slope(log_snr: Scalar, state: tuple[Images, PerItem]) -> tuple[Images, PerItem]:
        return flow.slope(state[0], log_snr, log_snr.to(inside).clamp(inside[0], inside[1]))

    ends = torch.tensor([start, stop], dtype=torch.float64, device=z.device)
    options: dict[str, Any]
    if solver.method == "dopri5":
        # A step that ends at `stop`; by itself the solver steps over the end and interpolates.
        options = {"norm": _largest_error, "step_t": ends[1:], "max_num_steps": MOST_STEPS}
    else:
        grid = torch.linspace(start, stop, max(1, round(share * solver.steps)) + 1, dtype=torch.float64)
        options = {"grid_constructor": lambda *_: grid.to(z.device)}
    try:
        path = odeint(
            slope,
            (z, z.new_zeros(len(z))),
            ends,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.method,
            options=options,
        )
    except AssertionError as error:
        if not str(error).startswith(("underflow in dt", "max_num_steps exceeded")):
            raise
        raise UnavailableError(
            f"dopri5 cannot keep rtol {solver.rtol:g}, atol {solver.atol:g} between log-SNR {stop:g} and {start:g} "
            f"({error}); loosen them, or use rk4"
        ) from None
    return path[0][-1], path[1][-1]


def _largest_error(state: tuple[Images, PerItem]) -> Scalar:
    """The largest error of any image: the mean of a batch would let easy images hide a hard one."""
    z, volume = state
    return torch.maximum(z.flatten(1).square().mean(1).sqrt(), volume.abs()).max()


def _trace(velocity: Images, z: Images, directions: Directions) -> PerItem:
    """Σ eᵀ (∂v/∂z) e over the directions e of each image: the trace if they are a basis, else an estimate of it."""
    if not velocity.requires_grad:
        raise UnavailableError(
            "the denoiser's prediction carries no gradient by its noisy image, which the ODE's divergence needs; "
            "use method: continuous"
        )
    trace = torch.zeros_like(z[:, 0, 0, 0])
    for i, direction in enumerate(directions):
        (product,) = torch.autograd.grad(velocity, z, direction, retain_graph=i + 1 < len(directions))
        trace = trace + (product * direction).flatten(1).sum(1)
    return trace.detach()


def _directions(divergence: DivergenceEstimate, image: ImageShape, items: Trajectories) -> Directions:
    """The basis of all images, or one probe of mean 0 and covariance 1 for each that it keeps all along its way."""
    if divergence == "exact":
        if image.n_dims > MOST_EXACT_DIMS:
            raise UnavailableError(
                f"divergence: exact takes a backward pass for each of {image.n_dims} dimensions, "
                f"more than {MOST_EXACT_DIMS}; use divergence: rademacher"
            )
        basis = torch.eye(image.n_dims).view(image.n_dims, 1, *image.tensor_shape)
        return basis.expand(-1, len(items.ids), -1, -1, -1)
    probes = items.normal(image.tensor_shape, "ode/probe")[None]
    return probes if divergence == "gaussian" else torch.where(probes < 0, -1.0, 1.0)
