"""Contract checks of components that are made for one shape of image or one number of experts."""

from typing import Literal

import pytest
import torch

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.testing import check_component, check_expert, check_gate, check_trunk
from moeframe.testing.analytic import PlainTrunk

TIED = ImageShape(channels=2, height=4, width=6, levels=8)


class TiedExpert(Expert):
    """Has a weight per pixel of 2x4x6 images with 8 levels."""

    class Config(Expert.Config):
        type: Literal["tied_expert"] = "tied_expert"

    def __init__(self, config, *, image):
        super().__init__(config, image=image)
        self.scale = torch.nn.Parameter(torch.ones(2, 4, 6))
        self.per_level = torch.nn.Parameter(torch.zeros(8))

    def forward(self, z, log_snr):
        levels = torch.linspace(-1, 1, self.image.levels).to(z)
        return torch.einsum("bchw,chw->bchw", z, self.scale) + torch.dot(levels, self.per_level)


class TiedGate(Gate):
    """Reads 2x4x6 images and knows three experts."""

    class Config(Gate.Config):
        type: Literal["tied_gate"] = "tied_gate"

    def __init__(self, config, *, image, n_experts):
        super().__init__(config, image=image, n_experts=n_experts)
        self.matrix = torch.nn.Parameter(torch.zeros(3, 2, 4, 6))

    def forward(self, z, log_snr):
        return torch.einsum("bchw,kchw->bk", z, self.matrix).softmax(1)


class PairLoss(Loss):
    """Compares two experts, no more."""

    UNIT = "dimensionless"

    class Config(Loss.Config):
        type: Literal["pair"] = "pair"

    def __call__(self, step):
        first, second = step.denoised.routing.weights.unbind(1)
        return (first - second).square().mean()


def test_a_component_tied_to_one_shape_is_checked_on_that_shape():
    check_expert(TiedExpert, image=TIED)
    check_gate(TiedGate, image=TIED, n_experts=3)
    check_component(TiedExpert, image=TIED)
    check_component(TiedGate, image=TIED, n_experts=3)
    check_component(PairLoss, n_experts=2)
    check_trunk(PlainTrunk, image=TIED)


def test_an_expert_on_a_shape_it_is_not_made_for_says_which_arguments_to_pass():
    with pytest.raises(AssertionError) as caught:
        check_expert(TiedExpert)
    message = str(caught.value)
    assert "TiedExpert ('tied_expert', experts) fails on images of 1x8x8 with 256 levels with RuntimeError: " in message
    needs = "pass the check image=ImageShape(channels=..., height=..., width=..., levels=...)"
    assert message.endswith(f"; if it is made for other shapes, {needs}")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("given", [{}, {"n_experts": 3}])
def test_a_gate_on_a_shape_it_is_not_made_for_says_which_arguments_to_pass(given):
    with pytest.raises(
        AssertionError, match=r"fails on images of .* and [34] experts with .*; .* or n_experts=\.\.\.$"
    ):
        check_component(TiedGate, **given)


def test_a_gate_made_for_another_number_of_experts_is_caught():
    with pytest.raises(AssertionError, match=r"breaks the rule: weights have shape \(batch, experts\)"):
        check_component(TiedGate, image=TIED)


def test_the_levels_of_the_given_shape_reach_the_component():
    with pytest.raises(AssertionError, match="fails on images of 2x4x6 with 16 levels"):
        check_expert(TiedExpert, image=ImageShape(2, 4, 6, 16))


def test_a_given_shape_does_not_hide_a_broken_rule():
    class WrongShape(TiedExpert):
        """Loses a channel."""

        def forward(self, z, log_snr):
            return super().forward(z, log_snr)[:, :1]

    with pytest.raises(AssertionError, match="breaks the rule: the velocity is shaped like z"):
        check_expert(WrongShape, image=TIED)
