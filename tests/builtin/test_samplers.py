"""The built-in samplers on models whose samples are known."""

import math

import pytest
import torch

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.sampler import Sampler
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.sampling import predict_image
from moeframe.randomness import Streams, Trajectories
from moeframe.testing import GaussianExpert, gaussian_mixture
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_builtin.samplers.ancestral import AncestralSampler
from moeframe_builtin.samplers.ddim import DdimSampler
from moeframe_builtin.samplers.heun import HeunSampler
from moeframe_builtin.schedules.linear import LinearSchedule

IMAGE = ImageShape(channels=1, height=6, width=6, levels=256)
ALL = [AncestralSampler, DdimSampler, HeunSampler]
SCHEDULE = LinearSchedule(LinearSchedule.Config())


def sampler(component: type[Sampler], **settings) -> Sampler:
    return component(component.Config(**settings), schedule=SCHEDULE)


def gaussian(mean: float = 0.2, std: float = 0.15) -> MergedDenoiser:
    return MergedDenoiser([GaussianExpert(GaussianExpert.Config(mean=mean, std=std), image=IMAGE)])


def walk(component: type[Sampler], model: MergedDenoiser, n: int = 200, seed: int = 0, **settings):
    items = Trajectories.numbered(Streams(seed), 0, n)
    return list(sampler(component, **settings).trajectory(model, items.normal(IMAGE.tensor_shape, "noise"), items))


@pytest.mark.parametrize("component", ALL)
def test_samples_of_a_gaussian_have_its_mean_and_spread(component):
    image = walk(component, gaussian(), steps=100, clip=False)[-1].z.double()
    n = image.numel()
    assert abs(float(image.mean()) - 0.2) < 4 * 0.15 / n**0.5 + 1e-3
    assert float(image.std()) == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize("component", ALL)
def test_samples_of_a_mixture_have_its_shares(component):
    parts = [GaussianExpert.Config(mean=m, std=0.1) for m in (-0.5, 0.5)]
    image = walk(component, gaussian_mixture(parts, (0.25, 0.75), IMAGE), n=400, steps=60)[-1].z
    means = image.flatten(1).mean(1)
    assert float((means.abs() - 0.5).abs().max()) < 0.15
    assert abs(float((means > 0).double().mean()) - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 400) + 0.01


@pytest.mark.parametrize(("component", "calls_per_step"), [(AncestralSampler, 1), (DdimSampler, 1), (HeunSampler, 2)])
def test_network_calls_are_counted_per_image_and_expert(component, calls_per_step):
    parts = [GaussianExpert.Config(mean=0.01 * m, std=0.5) for m in range(3)]
    model = gaussian_mixture(parts, (0.4, 0.3, 0.3), IMAGE)
    last = walk(component, model, n=5, steps=7)[-1]
    assert last.network_calls == 5 * 3 * (calls_per_step * 7 - (calls_per_step - 1))


@pytest.mark.parametrize("component", ALL)
def test_one_step_is_the_image_predicted_from_noise(component):
    states = walk(component, gaussian(), n=3, steps=1)
    assert len(states) == 2
    assert torch.equal(states[-1].z, states[0].image)
    assert states[-1].z == pytest.approx(torch.full((3, 1, 6, 6), 0.2), abs=0.01)


@pytest.mark.parametrize("component", ALL)
def test_the_clipped_image_stays_in_the_range_of_pixels_and_the_unclipped_does_not(component):
    bright = gaussian(mean=2.0)
    assert float(walk(component, bright, n=4, steps=10)[-1].z.max()) <= 1
    assert float(walk(component, bright, n=4, steps=10, clip=False)[-1].z.min()) > 1


@pytest.mark.parametrize("component", [DdimSampler, HeunSampler])
def test_a_deterministic_sampler_takes_the_same_noise_to_the_same_image_whoever_asks(component):
    noise = Streams(0).normal((2, *IMAGE.tensor_shape), "noise")
    first, second = (
        list(sampler(component, steps=9).trajectory(gaussian(), noise, Trajectories.numbered(Streams(seed), 0, 2)))
        for seed in (0, 1)
    )
    assert torch.equal(first[-1].z, second[-1].z)


def test_ancestral_draws_depend_on_the_seed_and_the_step():
    noise = Streams(0).normal((2, *IMAGE.tensor_shape), "noise")
    first, second = (
        list(sampler(AncestralSampler).trajectory(gaussian(), noise, Trajectories.numbered(Streams(seed), 0, 2)))
        for seed in (0, 1)
    )
    assert not torch.allclose(first[-1].z, second[-1].z, atol=1e-2)


@pytest.mark.parametrize("component", ALL)
def test_a_walk_from_a_clean_start_stays_near_it(component):
    x = 0.2 + 0.15 * Streams(0).normal((8, *IMAGE.tensor_shape), "x")
    items = Trajectories.numbered(Streams(0), 0, 8)
    *_, last = sampler(component, steps=20).trajectory(gaussian(), x, items, start=9.0)
    assert float((last.z - x).abs().max()) < 0.08


def test_merging_takes_one_noise_draw_so_copies_of_an_expert_sample_like_one():
    parts = [GaussianExpert.Config(mean=0.2, std=0.15)] * 3
    copies = gaussian_mixture(parts, (0.2, 0.3, 0.5), IMAGE)
    one, three = (walk(AncestralSampler, model, n=20, steps=30)[-1].z for model in (gaussian(), copies))
    assert torch.allclose(one, three, atol=1e-5)


def test_the_merged_image_is_clipped_not_the_experts_images():
    """Experts that say 2 and -1 with equal weight mean 0.5; clipped before merging they would mean 0."""
    experts = [GaussianExpert(GaussianExpert.Config(mean=mean, std=1e-3), image=IMAGE) for mean in (2.0, -1.0)]
    model = MergedDenoiser(experts, UniformGate(UniformGate.Config(), image=IMAGE, n_experts=2))
    z, items = torch.zeros(2, *IMAGE.tensor_shape), Trajectories.numbered(Streams(0), 0, 2)
    image = predict_image(model, z, 0.0, items, clip=True).image
    assert torch.allclose(image, torch.full_like(image, 0.5), atol=1e-3)
