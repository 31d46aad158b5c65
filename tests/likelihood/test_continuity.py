"""A model that jumps without saying so is found by asking; a continuous one, however steep, is not refused."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import Gate
from moeframe.likelihood.continuity import require_continuous
from moeframe.likelihood.probe import require_valid
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Streams
from moeframe.testing import GaussianExpert
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.switch import SwitchGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.schedules.linear import LinearSchedule

IMAGE = ImageShape(1, 4, 4, 16)
SCHEDULE = LinearSchedule(LinearSchedule.Config(log_snr_min=-8, log_snr_max=8))
CPU = torch.device("cpu")


class ArgmaxGate(Gate):
    """Gives the image to the expert of its sign, and does not say that it jumps."""

    class Config(Gate.Config):
        type: Literal["argmax"] = "argmax"

    def forward(self, z, log_snr):
        return F.one_hot((z.mean((1, 2, 3)) > 0.1).long(), 2).to(z)


class SteepGate(ArgmaxGate):
    """Does the same steeply, but without a jump."""

    def forward(self, z, log_snr):
        share = torch.sigmoid(200 * (z.mean((1, 2, 3)) - 0.1))
        return torch.stack([1 - share, share], 1)


class SecretSwitch(ArgmaxGate):
    """Gives one expert the log-SNRs above 3.3."""

    def forward(self, z, log_snr):
        return F.one_hot((log_snr > 3.3).long(), 2).to(z)


class StatedSwitch(SecretSwitch):
    """Says so."""

    @property
    def switches(self):
        return (float(torch.tensor(3.3)),)


def merged(component, **config):
    experts = [GaussianExpert(GaussianExpert.Config(mean=mean, std=0.2), image=IMAGE) for mean in (-0.4, 0.4)]
    gate = component(component.Config(**config), image=IMAGE, n_experts=2)
    return MergedDenoiser(experts, stirred(lambda: gate) if list(gate.parameters()) else gate).eval()


def check(model, seed=0):
    require_continuous(model, IMAGE, SCHEDULE, Streams(seed), CPU, gate=model.gate)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("component", "where"),
    [(ArgmaxGate, "from one noisy image to the next"), (SecretSwitch, "between log-SNR -8 and 8")],
)
def test_a_jump_that_nobody_stated_is_found(component, where, seed):
    with pytest.raises(
        UnavailableError, match=rf"^the model jumps {where}, by \S+ of its largest value .* use method:"
    ):
        check(merged(component), seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("component", [SteepGate, StatedSwitch, SoftmaxGate])
def test_what_is_continuous_or_says_where_it_is_not_is_accepted(component, seed):
    check(merged(component), seed)


def test_the_built_in_switch_and_networks_are_accepted_and_top_k_is_refused_for_what_it_says():
    check(merged(SwitchGate, eta=1.7))
    with pytest.raises(UnavailableError, match="^the weights of gate top_k jump"):
        check(merged(TopKGate, k=1))
    expert = UNetExpert(UNetExpert.Config(channels=8, channel_multipliers=[1]), image=IMAGE)
    check(MergedDenoiser([stirred(lambda: expert).eval()]))


class NarrowBand(StatedSwitch):
    """One expert has the log-SNRs from 3.3 to 3.5, where its share goes by the batch."""

    @property
    def switches(self):
        return (float(torch.tensor(3.3)), float(torch.tensor(3.5)))

    def forward(self, z, log_snr):
        means = z.mean((1, 2, 3))
        share = torch.where((log_snr > 3.3) & (log_snr < 3.5), torch.sigmoid(9 * (means - means.mean())), 0.0)
        return torch.stack([1 - share, share], 1)


@pytest.mark.parametrize("seed", range(5))
def test_what_happens_between_two_stated_switches_is_asked_however_near_they_are(seed):
    model = merged(NarrowBand)
    with pytest.raises(UnavailableError, match="batch"):
        require_valid(model, IMAGE, SCHEDULE, Streams(seed), CPU, gate=model.gate, n_items=32)


class SecretBand(NarrowBand):
    """The same over a sixth of the range, and says nothing."""

    @property
    def switches(self):
        return ()

    def forward(self, z, log_snr):
        means = z.mean((1, 2, 3))
        share = torch.where((log_snr > 3.5) & (log_snr < 6.2), torch.sigmoid(9 * (means - means.mean())), 0.0)
        return torch.stack([1 - share, share], 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_part_of_the_range_that_nobody_stated_is_asked_too(seed):
    model = merged(SecretBand)
    with pytest.raises(UnavailableError, match="batch"):
        require_valid(model, IMAGE, SCHEDULE, Streams(seed), CPU, gate=model.gate, n_items=32)
