"""Every rule for gates, experts, samplers and losses is broken once, and the contract checks catch it."""

import math
import re
from typing import Literal

import pytest
import torch
from pydantic import ConfigDict

from moeframe.diffusion import image_from_velocity
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate, Routing
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.sampler import Sampler, SamplerState
from moeframe.model.sampling import ddim_trajectory
from moeframe.testing import check_component


class GoodGate(Gate):
    """Depends on z and λ."""

    class Config(Gate.Config):
        type: Literal["good"] = "good"

    def logits(self, z, log_snr):
        return z.mean((1, 2, 3))[:, None] * torch.arange(self.n_experts) + log_snr[:, None] / 10

    def forward(self, z, log_snr):
        return self.logits(z, log_snr).softmax(1)


class NegativeGate(GoodGate):
    """Rows sum to one, but not every weight is positive."""

    def forward(self, z, log_snr):
        logits = self.logits(z, log_snr)
        return logits - logits.mean(1, keepdim=True) + 1 / self.n_experts


class UnnormalisedGate(GoodGate):
    """Rows do not sum to one."""

    def forward(self, z, log_snr):
        return self.logits(z, log_snr).sigmoid()


class BatchNormalisingGate(GoodGate):
    """Looks at the other items of the batch."""

    def forward(self, z, log_snr):
        logits = self.logits(z, log_snr)
        return (logits - logits.mean(0)).softmax(1)


class PositionGate(GoodGate):
    """Gives the first item of a batch to the first expert."""

    def forward(self, z, log_snr):
        return torch.nn.functional.one_hot(torch.arange(len(z)) % self.n_experts, self.n_experts).to(z)


class GlobalNoiseGate(GoodGate):
    """Draws from torch's global generator."""

    def route(self, z, log_snr, trajectories=None):
        weights = (self.logits(z, log_snr) + 1e-5 * torch.randn(1)).softmax(1)
        weights = weights * (1 + 1e-6 * torch.randn(1))
        return Routing(weights, weights)


class NanGate(GoodGate):
    """Fails at high log-SNR."""

    def forward(self, z, log_snr):
        return (self.logits(z, log_snr) / (log_snr[:, None] < 11)).softmax(1)


class LooseConfigGate(GoodGate):
    """Drops unknown keys."""

    class Config(Gate.Config):
        model_config = ConfigDict(extra="ignore")
        type: Literal["loose"] = "loose"


class NeedsConfigGate(GoodGate):
    """Has a setting without a default."""

    class Config(Gate.Config):
        type: Literal["needs_config"] = "needs_config"
        temperature: float


class GoodExpert(Expert):
    """Linear in z."""

    class Config(Expert.Config):
        type: Literal["good"] = "good"

    def forward(self, z, log_snr):
        return 0.5 * z


class BatchNormExpert(GoodExpert):
    """Uses batch statistics."""

    def forward(self, z, log_snr):
        return (z - z.mean(0)) / 2


class HalfRangeExpert(GoodExpert):
    """Infinite where the noise is low, but declares no range."""

    def forward(self, z, log_snr):
        return z / (log_snr.view(-1, 1, 1, 1) < 14)


class SquareExpert(GoodExpert):
    """Cuts the image to a square."""

    def forward(self, z, log_snr):
        return z[..., : z.shape[-2]]


class DropoutExpert(GoodExpert):
    """Random in eval mode."""

    def forward(self, z, log_snr):
        return z * (1 + 1e-6 * torch.rand(1))


class InPlaceExpert(GoodExpert):
    """Overwrites its input."""

    def forward(self, z, log_snr):
        return z.mul_(0.5)


class Walk(Sampler):
    """DDIM."""

    class Config(Sampler.Config):
        type: Literal["walk"] = "walk"

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return ddim_trajectory(denoiser, noise, trajectories, self.grid(start), clip=self.config.clip)


class UncountedSampler(Walk):
    """Reports one call per step whatever the batch and the number of experts."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        for i, state in enumerate(super().trajectory(denoiser, noise, trajectories, start)):
            yield SamplerState(state.z, state.image, state.log_snr, i)


class UnfinishedSampler(Walk):
    """Stops at the cleanest noise level."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        yield from list(super().trajectory(denoiser, noise, trajectories, start))[:-1]


class UnclippedSampler(Walk):
    """Ignores the setting `clip`."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return ddim_trajectory(denoiser, noise, trajectories, self.grid(start), clip=False)


class StartlessSampler(Walk):
    """Ignores `start`."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        return super().trajectory(denoiser, noise, trajectories)


class BlindSampler(Walk):
    """Never moves its state: the last image is one guess from pure noise."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        calls = 0
        for log_snr in self.grid(start):
            levels = torch.full((len(noise),), log_snr)
            denoised = denoiser(noise, levels, trajectories)
            image = image_from_velocity(denoised.velocity, noise, levels).clamp(-1, 1) * 0
            yield SamplerState(noise, image, log_snr, calls)
            calls += denoised.network_calls
        yield SamplerState(image, image, math.inf, calls)


class SharedNoiseSampler(Walk):
    """Adds noise that depends on the place in the batch."""

    def trajectory(self, denoiser, noise, trajectories, start=None):
        shift = 0.01 * torch.arange(len(noise)).view(-1, 1, 1, 1)
        return super().trajectory(denoiser, noise + shift, trajectories, start)


class GoodLoss(Loss):
    """Mean squared error."""

    class Config(Loss.Config):
        type: Literal["good"] = "good"

    def __call__(self, step):
        return (step.denoised.velocity - step.velocity).square().mean()


class UnitlessLoss(GoodLoss):
    """In a unit that nobody knows."""

    UNIT = "points"


class DetachedLoss(GoodLoss):
    """Nothing learns from it."""

    def __call__(self, step):
        return super().__call__(step).detach()


class LogarithmLoss(GoodLoss):
    """Infinite at a weight of zero."""

    def __call__(self, step):
        return -step.denoised.routing.probabilities.log().mean()


class PerItemLoss(GoodLoss):
    """Not averaged."""

    def __call__(self, step):
        return (step.denoised.velocity - step.velocity).square().flatten(1).mean(1)


@pytest.mark.parametrize("component", [GoodGate, GoodExpert, Walk, GoodLoss])
def test_the_sound_original_of_each_broken_component_passes(component):
    check_component(component)


@pytest.mark.parametrize(
    ("component", "rule"),
    [
        (NegativeGate, "weights are not negative"),
        (UnnormalisedGate, "rows of the weights sum to one"),
        (BatchNormalisingGate, "an item does not depend on the others in its batch"),
        (PositionGate, "the order of the batch does not matter"),
        (GlobalNoiseGate, "the same seed gives the same result"),
        (NanGate, "weights are finite"),
        (LooseConfigGate, "its config is strict and frozen"),
        (BatchNormExpert, "an item does not depend on the others in its batch"),
        (HalfRangeExpert, "the velocity is finite over log_snr_range"),
        (DropoutExpert, "the same seed gives the same result"),
        (InPlaceExpert, "the input is left as it was"),
        (UncountedSampler, "network_calls counts the"),
        (UnfinishedSampler, "the last state is the image, at λ = inf"),
        (UnclippedSampler, "with clip the image is in [-1, 1], not at"),
        (StartlessSampler, "a trajectory starts at `start`"),
        (BlindSampler, "samples spread like the data"),
        (SharedNoiseSampler, "the order of the batch does not matter"),
        (UnitlessLoss, "UNIT is one of bits/dim, nats, dimensionless"),
        (DetachedLoss, "the value has a gradient"),
        (LogarithmLoss, "the value is finite"),
    ],
)
def test_a_broken_component_is_caught_and_named_with_the_rule(component, rule):
    with pytest.raises(AssertionError, match=re.escape(rule)) as error:
        check_component(component)
    assert component.__name__ in str(error.value)
    assert component.KIND in str(error.value)


@pytest.mark.parametrize(("component", "rule"), [(SquareExpert, "shaped like z"), (PerItemLoss, "is a scalar")])
def test_a_wrong_shape_is_caught(component, rule):
    with pytest.raises(AssertionError, match=rule):
        check_component(component)


def test_a_component_with_settings_without_default_asks_for_a_config():
    with pytest.raises(AssertionError, match="NeedsConfigGate has settings without default; pass a config"):
        check_component(NeedsConfigGate)
    check_component(NeedsConfigGate, NeedsConfigGate.Config(temperature=1.0))
