"""A number that would not be a likelihood is refused, with the reason, by asking the model; an honest one is not."""

import re
from typing import Literal

import pytest
import torch

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.denoiser import Denoised
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate, Routing
from moeframe.likelihood.probe import require_valid
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_builtin.schedules.linear import LinearSchedule

IMAGE = ImageShape(1, 8, 8, 16)
SCHEDULE = LinearSchedule(LinearSchedule.Config())
N_ITEMS = 200
LABELS = torch.arange(N_ITEMS) * 4 // N_ITEMS
"""As in a folder: 50 images of a class, then 50 of the next."""


def probe(model: MergedDenoiser, seed: int = 0, n_items: int = N_ITEMS) -> None:
    device = torch.device("cpu")
    require_valid(model, IMAGE, SCHEDULE, Streams(seed), device, gate=model.gate, n_items=n_items)


def gaussians(gate: Gate | None = None, k: int = 4) -> MergedDenoiser:
    means = torch.linspace(-0.5, 0.5, k).tolist()
    experts = [GaussianExpert(GaussianExpert.Config(mean=m, std=0.2), image=IMAGE) for m in means]
    return MergedDenoiser(experts, gate)


def gate_of(component: type[Gate], k: int = 4, **settings: object) -> Gate:
    config = component.Config.model_validate({"type": component.name(), **settings})
    return stirred(lambda: component(config, image=IMAGE, n_experts=k)).eval()


class LabelGate(Gate):
    """Cheats: closes over the labels of the test images and looks the item's up by its number."""

    class Config(Gate.Config):
        type: Literal["label"] = "label"

    def forward(self, z, log_snr):
        raise NotImplementedError

    def route(self, z, log_snr, trajectories=None):
        weights = torch.nn.functional.one_hot(LABELS[trajectories.ids], self.n_experts).to(z)
        return Routing(weights, weights)


class LabelGateThatClaimsToBeRandom(LabelGate):
    """Cheats and lies."""

    @property
    def random(self):
        return True


class MostlyLabelGate(LabelGateThatClaimsToBeRandom):
    """Cheats 19 times in 20, and draws the other time."""

    def route(self, z, log_snr, trajectories=None):
        drawn = trajectories.choice(self.n_experts, "mostly")
        honest = trajectories.choice(20, "honest") == 0
        chosen = torch.where(honest, drawn, LABELS[trajectories.ids])
        weights = torch.nn.functional.one_hot(chosen, self.n_experts).to(z)
        return Routing(weights, weights)


class SecretlyRandomGate(RandomGate):
    """Draws, and does not say so."""

    @property
    def random(self):
        return False


class SeedGate(Gate):
    """Follows the seed alone."""

    class Config(Gate.Config):
        type: Literal["seed"] = "seed"

    def forward(self, z, log_snr):
        raise NotImplementedError

    def route(self, z, log_snr, trajectories=None):
        chosen = torch.full((len(z),), trajectories.streams.seed % self.n_experts)
        weights = torch.nn.functional.one_hot(chosen, self.n_experts).to(z)
        return Routing(weights, weights)


class BatchMeanGate(UniformGate):
    """Compares an item with the mean of its batch."""

    def forward(self, z, log_snr):
        means = z.mean((1, 2, 3))
        return torch.stack([means - means.mean(), torch.zeros_like(means)], 1).softmax(1)


class PositionGate(UniformGate):
    """Gives the first item of a batch to the first expert."""

    def forward(self, z, log_snr):
        return torch.nn.functional.one_hot(torch.arange(len(z)) % self.n_experts, self.n_experts).to(z)


class LogSnrRankGate(UniformGate):
    """Goes by whether the item is the noisiest of its batch."""

    def forward(self, z, log_snr):
        return torch.nn.functional.one_hot((log_snr == log_snr.min()).long(), self.n_experts).to(z)


class UnnormalisedGate(UniformGate):
    """Weights of 0.6 for each of two experts."""

    def forward(self, z, log_snr):
        return torch.full((len(z), 2), 0.6)


class DeclaredUnnormalisedGate(UnnormalisedGate):
    """An ablation that says what it is."""

    @property
    def sums_to_one(self):
        return False


class PlainExpert(Expert):
    """Linear in z."""

    class Config(Expert.Config):
        type: Literal["plain"] = "plain"

    def forward(self, z, log_snr):
        return 0.3 * z


class BatchNormExpert(PlainExpert):
    """Left in training mode."""

    def __init__(self, config, *, image):
        super().__init__(config, image=image)
        self.norm = torch.nn.BatchNorm2d(image.channels)

    def forward(self, z, log_snr):
        return self.norm(z)


class DropoutExpert(PlainExpert):
    """Random where dropout is on."""

    def forward(self, z, log_snr):
        return torch.nn.functional.dropout(z, 0.1, training=self.training)


class InfiniteExpert(PlainExpert):
    """Fails at the cleanest end alone."""

    def forward(self, z, log_snr):
        return z / (log_snr.view(-1, 1, 1, 1) < 10)


def single(expert: type[Expert]) -> MergedDenoiser:
    return MergedDenoiser([expert(expert.Config(), image=IMAGE)])


HONEST = {
    "one expert": lambda: gaussians(k=1),
    "true mixture": lambda: gaussian_mixture(
        [GaussianExpert.Config(mean=m, std=0.2) for m in (-0.4, 0.4)], (0.5, 0.5), IMAGE
    ),
    "networks behind top-k": lambda: MergedDenoiser(
        [stirred(lambda: UNetExpert(UNetExpert.Config(channels=4), image=IMAGE), seed=k).eval() for k in range(4)],
        gate_of(TopKGate, k=4, width=4),
    ),
    "softmax": lambda: gaussians(gate_of(SoftmaxGate, width=4)),
    "untrained top-k, all of whose weights tie": lambda: gaussians(
        TopKGate(TopKGate.Config(k=2, width=4), image=IMAGE, n_experts=4).eval()
    ),
    "top-k without renormalising, declared": lambda: gaussians(
        stirred(lambda: TopKGate(TopKGate.Config(k=2, width=4, renormalize=False), image=IMAGE, n_experts=4)).eval()
    ),
    "other declared ablation": lambda: gaussians(gate_of(DeclaredUnnormalisedGate, k=2), k=2),
    "uniform": lambda: gaussians(gate_of(UniformGate)),
    "random per step": lambda: gaussians(gate_of(RandomGate)),
    "random per sample": lambda: gaussians(gate_of(RandomGate, redraw="per_sample")),
    "random among one": lambda: gaussians(gate_of(RandomGate, k=1), k=1),
}


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_accepted(name, seed):
    with torch.random.fork_rng():
        probe(HONEST[name](), seed)


REFUSED = {
    "labels by item number": (
        lambda: gaussians(gate_of(LabelGate)),
        "no likelihood: for the same noisy image and log-SNR the prediction changes by .* of the largest value at "
        "log-SNR .* with the item's number, so the model sees more than these two (its label, say); a gate that draws "
        "from `trajectories` must declare itself `random`",
    ),
    "labels under the name of chance": (
        lambda: gaussians(gate_of(LabelGateThatClaimsToBeRandom)),
        "no likelihood: the gate declares itself `random`, but for the same draws the prediction changes by .* of the "
        "largest value at log-SNR .* with the item's number, so the model sees more than them (its label, say); draw "
        "by the methods of `trajectories` alone",
    ),
    "labels with some chance": (
        lambda: gaussians(gate_of(MostlyLabelGate)),
        "no likelihood: the gate declares itself `random`, but for the same draws the prediction changes by",
    ),
    "undeclared draws": (
        lambda: gaussians(gate_of(SecretlyRandomGate, redraw="per_sample")),
        "with the item's number, so the model sees more than these two",
    ),
    "the seed": (lambda: gaussians(gate_of(SeedGate)), "with the item's number, so the model sees more than these two"),
    "mean of the batch": (
        lambda: gaussians(gate_of(BatchMeanGate, k=2), k=2),
        "no likelihood: an item's prediction changes by .* of the largest value at log-SNR .* when its companions "
        "change; predict each item on its own, without statistics of the batch",
    ),
    "log-SNRs of the batch": (
        lambda: gaussians(gate_of(LogSnrRankGate, k=2), k=2),
        "no likelihood: an item's prediction changes by .* when it is alone",
    ),
    "place in the batch": (
        lambda: gaussians(gate_of(PositionGate)),
        "no likelihood: an item's prediction changes by .* when its batch is reordered",
    ),
    "batch normalisation": (
        lambda: single(BatchNormExpert).train(),
        "no likelihood: an item's prediction changes by .* when its companions change",
    ),
    "dropout": (
        lambda: single(DropoutExpert).train(),
        "no likelihood: two calls on the same input differ by .* of the largest value at log-SNR .*; switch dropout "
        "off (eval mode), and address random draws by `trajectories`",
    ),
    "dropout of the gate": (
        lambda: gaussians(gate_of(SoftmaxGate, width=4, dropout=0.5).train()),
        "no likelihood: two calls on the same input differ by",
    ),
    "not finite at one end": (
        lambda: single(InfiniteExpert),
        "no likelihood: the prediction is not finite at log-SNR 10; look at the learning curves, or narrow the "
        "schedule's log_snr_min / log_snr_max",
    ),
    "weights that do not sum to one": (
        lambda: gaussians(gate_of(UnnormalisedGate, k=2), k=2),
        "no likelihood: the gate's weights sum to 1.2 at log-SNR .*, though it declares that they sum to one; "
        "normalise them, or return False from `sums_to_one`",
    ),
}


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_likelihood_is_refused_with_the_reason(name, seed):
    model, text = REFUSED[name]
    with torch.random.fork_rng(), pytest.raises(UnavailableError, match=re.escape(text).replace(r"\.\*", ".*")):
        probe(model(), seed)


def test_the_same_networks_are_accepted_once_in_eval_mode():
    probe(single(DropoutExpert).eval())
    probe(single(BatchNormExpert).eval())
    probe(gaussians(gate_of(SoftmaxGate, width=4, dropout=0.5).eval()))


def test_labels_of_one_image_in_twenty_are_found():
    class RareLabelGate(LabelGate):
        def route(self, z, log_snr, trajectories=None):
            weights = torch.nn.functional.one_hot((trajectories.ids % 20 == 0).long(), self.n_experts).to(z)
            return Routing(weights, weights)

    with pytest.raises(UnavailableError, match="with the item's number"):
        probe(gaussians(gate_of(RareLabelGate)))


def test_the_numbers_asked_are_those_that_the_estimate_uses():
    seen = []

    class Recorder:
        def __call__(self, z, log_snr, trajectories=None):
            seen.extend(trajectories.ids.tolist())
            velocity = 0.3 * z
            return Denoised(velocity, Routing(z.new_ones(len(z), 1), z.new_ones(len(z), 1)), ())

    require_valid(Recorder(), IMAGE, SCHEDULE, Streams(0), torch.device("cpu"), gate=None, n_items=1000)
    assert min(seen) >= 0
    assert max(seen) < 1000
    assert max(seen) > 900
    assert len(seen) < 300, "the probe is cheap beside an estimate"


def test_rounding_of_another_order_of_summation_is_no_coupling():
    class Rounding:
        """Predictions that move by 1e-5 with the size of the batch."""

        def __call__(self, z, log_snr, trajectories=None):
            ones = z.new_ones(len(z), 1)
            return Denoised(0.3 * z * (1 + 1e-5 * len(z)), Routing(ones, ones), ())

    require_valid(Rounding(), IMAGE, SCHEDULE, Streams(0), torch.device("cpu"), gate=None, n_items=10)
