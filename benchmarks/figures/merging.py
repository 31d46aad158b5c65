"""Figures about merging: equivalences of gates and parametrisations, dispatch, the exact mixture."""

import torch
from torch import Tensor

from moeframe import diffusion
from moeframe.assembly import assemble
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import Gate
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Streams, Trajectories
from moeframe.spec.binding import bind
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe.testing.rules import stirred
from moeframe.training.trainer import Trainer
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.gates.uniform import UniformGate

IMAGE = ImageShape(channels=1, height=8, width=8, levels=256)
STREAMS = Streams(20)
K = 4
Values = dict[str, float]


def worst(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def unet(number: int) -> UNetExpert:
    return stirred(lambda: UNetExpert(UNetExpert.Config(channels=8), image=IMAGE), seed=number).double().eval()


def gate_of(component: type[Gate], **settings: object) -> Gate:
    config = component.Config.model_validate({"type": component.name(), **settings})
    return stirred(lambda: component(config, image=IMAGE, n_experts=K)).double().eval()


def noisy(n: int = 32) -> tuple[Tensor, Tensor, Trajectories]:
    """States, log-SNRs from -6 to 6, and their streams."""
    z = STREAMS.normal((n, *IMAGE.tensor_shape), "z").double()
    return z, torch.linspace(-6, 6, n, dtype=torch.float64), Trajectories.numbered(STREAMS, 0, n)


@torch.no_grad()
def identical_experts_against_one() -> Values:
    """Largest difference of velocity between four copies of an expert, merged, and that expert; by gate."""
    expert, (z, log_snr, items) = unet(0), noisy()
    copies = [unet(0) for _ in range(K)]
    gates = (gate_of(gate) for gate in (RandomGate, SoftmaxGate, TopKGate, UniformGate))
    return {
        gate.name(): worst(MergedDenoiser(copies, gate)(z, log_snr, items).velocity, expert(z, log_snr))
        for gate in gates
    }


@torch.no_grad()
def top_k_of_all_against_softmax() -> Values:
    """Largest difference of weight between top_k with k = K and a softmax gate of the same parameters."""
    z, log_snr, _ = noisy()
    softmax, top_k = gate_of(SoftmaxGate), gate_of(TopKGate, k=K)
    top_k.load_state_dict(softmax.state_dict())
    return {"weights": worst(top_k(z, log_snr), softmax(z, log_snr))}


@torch.no_grad()
def _commutation(gate: Gate) -> Values:
    z, log_snr, items = noisy()
    denoised = MergedDenoiser([unet(k) for k in range(K)], gate)(z, log_snr, items)
    noise, image = torch.zeros_like(z), torch.zeros_like(z)
    for part in denoised.contributions:
        at, weight = part.items, denoised.routing.weights[part.items, part.expert].view(-1, 1, 1, 1)
        noise[at] += weight * diffusion.noise_from_velocity(part.velocity, z[at], log_snr[at])
        image[at] += weight * diffusion.image_from_velocity(part.velocity, z[at], log_snr[at])
    return {
        "noise": worst(diffusion.velocity_from_noise(noise, z, log_snr), denoised.velocity),
        "image": worst(diffusion.velocity_from_image(image, z, log_snr), denoised.velocity),
    }


def merging_in_other_parametrisations() -> Values:
    """Largest difference of velocity between merging velocities and merging noises or images; top-2, Σw = 1."""
    return _commutation(gate_of(TopKGate))


def merging_without_renormalising() -> Values:
    """The same where weights do not sum to one (the ablation): how far the result depends on the parametrisation."""
    return _commutation(gate_of(TopKGate, renormalize=False))


@torch.no_grad()
def dispatched_against_dense() -> Values:
    """Largest difference of velocity, float32, between dispatching to two of four experts and summing all four."""
    z, log_snr, _ = (value.float() if isinstance(value, Tensor) else value for value in noisy())
    experts, gate = [unet(k).float() for k in range(K)], gate_of(TopKGate).float()
    sparse = MergedDenoiser(experts, gate)(z, log_snr)
    outputs = torch.stack([expert(z, log_snr) for expert in experts], 1)
    return {"velocity": worst(sparse.velocity, torch.einsum("nk,nkchw->nchw", sparse.routing.weights, outputs))}


def expert_calls_of_top_2() -> Values:
    """Expert evaluations per image and step, counted inside the experts: in training and in sampling."""
    registry, n, steps = Registry.installed(), 8, 5
    data = {
        "name": "calls",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 8, "n_train": 32, "n_test": 8},
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "copies": K, "channels": 4}],
        "gate": {"type": "top_k", "k": 2},
        "objective": [{"type": "nll"}, {"type": "load_balance"}, {"type": "entropy"}],
        "sampler": {"type": "ddim", "steps": steps},
        "training": {"steps": steps, "batch_size": n, "warm_start": 0},
    }
    assembly = assemble(bind(data, registry), registry, seed=0)
    seen: list[int] = []
    for expert in assembly.model.experts:
        expert.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    list(Trainer(assembly).train_jointly())
    in_training = sum(seen)
    seen.clear()
    items = Trajectories.numbered(STREAMS, 0, n)
    with torch.no_grad():
        list(assembly.sampler.trajectory(assembly.model.eval(), items.normal((1, 8, 8), "noise"), items))
    return {"training": in_training / (n * steps), "sampling": sum(seen) / (n * steps)}


@torch.no_grad()
def posterior_gate_against_true_denoiser() -> Values:
    """Largest difference of velocity between three Gaussians merged by p(k | z, λ) and the score of their mixture."""
    slices = [GaussianExpert.Config(mean=m, std=s) for m, s in ((-0.5, 0.3), (0.1, 0.6), (0.4, 0.1))]
    shares = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    log_snr = torch.linspace(-8, 8, 65, dtype=torch.float64)
    x = torch.cat([part.mean + part.std * STREAMS.normal((65, 2, 3, 3), "x", i) for i, part in enumerate(slices)])
    log_snr = log_snr.repeat(len(slices))
    z = diffusion.add_noise(x.double(), STREAMS.normal(x.shape, "noise").double(), log_snr)
    merged = gaussian_mixture(slices, shares.tolist(), ImageShape(2, 3, 3, 256))(z, log_snr).velocity

    a, s = diffusion.alpha(log_snr), diffusion.sigma(log_snr)
    with torch.enable_grad():  # the score of log p(z), by automatic differentiation of torch's own densities
        leaf = z.clone().requires_grad_()
        densities = [
            torch.distributions.Normal(
                *(diffusion.per_image(v, z) for v in (a * c.mean, (a**2 * c.std**2 + s**2).sqrt()))
            )
            for c in slices
        ]
        log_p = torch.stack([density.log_prob(leaf).flatten(1).sum(1) for density in densities], 1) + shares.log()
        (score,) = torch.autograd.grad(log_p.logsumexp(1).sum(), leaf)
    return {"velocity": worst(merged, diffusion.velocity_from_noise(-diffusion.per_image(s, z) * score, z, log_snr))}
