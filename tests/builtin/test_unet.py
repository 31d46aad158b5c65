"""The UNet expert: sizes, preconditioning and memory saving."""

import pytest
import torch
from pydantic import ValidationError

from moeframe.diffusion import image_from_velocity, noise_from_velocity
from moeframe.interfaces.component import ImageShape
from moeframe.randomness import Streams
from moeframe.testing.rules import stirred
from moeframe_builtin.experts.unet import UNetExpert


def expert(shape: tuple[int, int, int] = (1, 8, 8), **settings) -> UNetExpert:
    image = ImageShape(*shape, 256)
    return stirred(lambda: UNetExpert(UNetExpert.Config(**{"channels": 8, **settings}), image=image))


def noisy(image: ImageShape, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return Streams(0).normal((n, *image.tensor_shape), "z"), torch.linspace(-6, 6, n)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 8, 8), {}),
        ((3, 7, 9), {"channel_multipliers": [1, 2, 2]}),
        ((1, 28, 28), {"channel_multipliers": [1, 2, 2], "blocks": 2}),
        ((3, 32, 32), {"channel_multipliers": [1, 2], "attention_resolutions": [16], "attention_heads": 2}),
        ((1, 1, 1), {}),
        ((2, 5, 3), {"channels": 6, "channel_multipliers": [1, 3]}),
    ],
)
def test_any_image_size_comes_back_in_its_shape_and_uses_every_parameter(shape, settings):
    network = expert(shape, **settings)
    z, log_snr = noisy(network.image)
    velocity = network(z, log_snr)
    assert velocity.shape == z.shape
    velocity.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.slow
def test_images_of_256_pixels_a_side():
    network = expert((3, 256, 256), channels=4, channel_multipliers=[1, 1, 2, 2], attention_resolutions=[32])
    with torch.no_grad():
        assert network(*noisy(network.image, 1)).shape == (1, 3, 256, 256)


def test_attention_is_placed_at_the_resolutions_asked_for():
    without, coarse = (expert((1, 16, 16), attention_resolutions=r) for r in ([], [8]))
    names = {name.rsplit(".attention", 1)[0] for name, _ in coarse.named_parameters() if ".attention" in name}
    assert {name for name, _ in without.named_parameters() if ".attention" in name} == set()
    assert names == {"network.contract.2", "network.middle", "network.expand.0", "network.expand.1"}


def test_a_fresh_network_is_zero():
    fresh = UNetExpert(UNetExpert.Config(channels=8), image=ImageShape(1, 8, 8, 256))
    z, log_snr = noisy(fresh.image)
    assert torch.equal(fresh(z, log_snr), torch.zeros_like(z))


@pytest.mark.parametrize("prediction", ["velocity", "noise", "image", "edm"])
def test_the_native_prediction_is_converted_to_velocity(prediction):
    network = expert(prediction=prediction, sigma_data=0.4).double()
    z, log_snr = (value.double() for value in noisy(network.image))
    velocity = network(z, log_snr)
    if prediction == "edm":  # Karras et al. 2022, table 1, in y = z / α and σ = exp(-λ/2)
        sigma = torch.exp(-log_snr / 2).view(-1, 1, 1, 1)
        y, total = z / torch.sigmoid(log_snr).sqrt().view(-1, 1, 1, 1), sigma**2 + 0.4**2
        raw = network.network(y / total.sqrt(), log_snr)
        denoised = 0.4**2 / total * y + sigma * 0.4 / total.sqrt() * raw
        assert torch.allclose(image_from_velocity(velocity, z, log_snr), denoised, atol=1e-10)
        return
    native = network.network(z, log_snr)
    read = {"velocity": lambda v, *_: v, "noise": noise_from_velocity, "image": image_from_velocity}[prediction]
    assert torch.allclose(read(velocity, z, log_snr), native, atol=1e-10)


def test_gradient_checkpointing_changes_no_output_and_no_gradient():
    plain, saving = (
        expert(attention_resolutions=[4], dropout=0.3, gradient_checkpointing=saves) for saves in (False, True)
    )
    results = []
    for network in (plain, saving):
        network.train()
        with Streams(0).governing_torch("dropout"):
            loss = network(*noisy(network.image)).square().mean()
            loss.backward()
        results.append([loss.detach(), *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradient_checkpointing_recomputes_the_blocks_in_training_only():
    network = expert(gradient_checkpointing=True).train()
    calls = []
    network.network.middle.register_forward_pre_hook(lambda *_: calls.append(1))
    network(*noisy(network.image)).square().mean().backward()
    assert len(calls) == 2
    network.eval()
    network(*noisy(network.image)).square().mean().backward()
    assert len(calls) == 3


def test_the_output_depends_on_the_noise_level_everywhere_in_the_range():
    network = expert()
    z = noisy(network.image, 1)[0].expand(25, -1, -1, -1)
    outputs = network(z, torch.linspace(-12, 12, 25)).detach()
    assert float((outputs[1:] - outputs[:-1]).abs().amax((1, 2, 3)).min()) > 1e-3


def test_heads_must_divide_the_channels():
    with pytest.raises(ValidationError, match="attention_heads 3 must divide channels 8"):
        UNetExpert.Config(channels=8, attention_heads=3)


def test_half_precision_autocast_runs_and_stays_near():
    network = expert(attention_resolutions=[4]).eval()
    z, log_snr = noisy(network.image)
    with torch.no_grad():
        exact = network(z, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(z, log_snr)
    assert float((rough.float() - exact).abs().max()) < 0.1 * float(exact.abs().max())
