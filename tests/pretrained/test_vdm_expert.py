"""VDM's flax checkpoints become experts that predict what VDM's score network and equations say."""

import hashlib
import math
import re

import msgpack
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from official_vdm import BLOCKS, SCALAR_SCHEDULE, WIDTH, neural_schedule, score_tree, write_state, write_vdm
from pydantic import ValidationError

from moeframe.errors import CheckpointError
from moeframe.interfaces.component import ImageShape
from moeframe.testing import check_expert
from moeframe_pretrained.vdm.expert import VdmExpert
from moeframe_pretrained.vdm.flax_msgpack import read_flax

IMAGE = ImageShape(channels=3, height=6, width=8, levels=256)
VARIANTS = pytest.mark.parametrize(
    "settings",
    [{}, {"attention": True}, {"fourier": False}, {"channels": 1}],
    ids=["usual", "attention everywhere", "no Fourier features", "grey"],
)
ALTERED = "; it belongs to another network or was altered; download it again"


def expert(path, image=IMAGE, **settings) -> VdmExpert:
    return VdmExpert(VdmExpert.Config(path=path, **settings), image=image)


def problem(path, image=IMAGE, **settings) -> str:
    with pytest.raises(CheckpointError) as error:
        expert(path, image, **settings)
    return str(error.value)


def noisy_images(channels: int = 3, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(n, channels, 6, 8, generator=generator, dtype=torch.float64)
    return z, torch.linspace(-5, 13, n, dtype=torch.float64)


# what it predicts


def predicted_noise(tree, z, time):
    """ε̂ written as one function of flax's tree, channels last, with one matrix product per layer."""
    channels = z.shape[1]

    def dense(layer, h):
        return h @ torch.from_numpy(layer["kernel"]).double() + torch.from_numpy(layer.get("bias", np.zeros(1)))

    def conv(layer, h):
        kernel, padded = torch.from_numpy(layer["kernel"]).double(), F.pad(h, (0, 0, 1, 1, 1, 1))
        rows, columns = h.shape[1:3]
        shifted = [padded[:, i : i + rows, j : j + columns] @ kernel[i, j] for i in range(3) for j in range(3)]
        return sum(shifted) + torch.from_numpy(layer["bias"])

    def norm(layer, h):
        groups = h.unflatten(-1, (32, -1))
        mean, variance = groups.mean((1, 2, 4), keepdim=True), groups.var((1, 2, 4), keepdim=True, correction=0)
        normal = ((groups - mean) / (variance + 1e-6).sqrt()).flatten(-2)
        return normal * torch.from_numpy(layer["scale"]) + torch.from_numpy(layer["bias"])

    def block(layer, h):
        inner = conv(layer["conv1"], F.silu(norm(layer["GroupNorm_0"], h)))
        inner = inner + dense(layer["cond_proj"], embedding)[:, None, None]
        inner = conv(layer["conv2"], F.silu(norm(layer["GroupNorm_1"], inner)))
        return inner + (dense(layer["nin_shortcut"], h) if "nin_shortcut" in layer else h)

    def attend(layer, h):
        flat = norm(layer["GroupNorm_0"], h).flatten(1, 2)
        q, k, v = (dense(layer[name], flat) for name in "qkv")
        weights = (q @ k.transpose(1, 2) / math.sqrt(WIDTH)).softmax(2)
        return h + dense(layer["proj_out"], weights @ v).reshape(h.shape)

    def stage(way, i, h):
        h = block(tree[f"{way}.block_{i}"], h)
        return attend(tree[f"{way}.attn_{i}"], h) if f"{way}.attn_{i}" in tree else h

    frequencies = [10000 ** (-i / (WIDTH // 2 - 1)) for i in range(WIDTH // 2)]
    angles = 1000 * time[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    embedding = torch.cat([angles.sin(), angles.cos(), torch.zeros_like(time)[:, None]], 1)
    embedding = F.silu(dense(tree["dense1"], F.silu(dense(tree["dense0"], embedding))))

    last = z.movedim(1, -1)
    if tree["conv_in"]["kernel"].shape[2] != channels:
        waves = [2**n * 2 * math.pi * last[..., c] for c in range(channels) for n in (6, 7)]
        features = torch.stack([*(w.sin() for w in waves), *(w.cos() for w in waves)], -1)
        last = torch.cat([last, features], -1)
    hidden = [conv(tree["conv_in"], last)]
    for i in range(BLOCKS):
        hidden.append(stage("down", i, hidden[-1]))
    h = attend(tree["mid.attn_1"], block(tree["mid.block_1"], hidden[-1]))
    h = block(tree["mid.block_2"], h)
    for i in range(BLOCKS + 1):
        h = stage("up", i, torch.cat([h, hidden.pop()], -1))
    return z + conv(tree["conv_out"], F.silu(norm(tree["GroupNorm_0"], h))).movedim(-1, 1)


@VARIANTS
@torch.no_grad()
def test_velocity_is_that_of_the_noise_which_vdms_network_predicts(tmp_path, settings):
    image = ImageShape(settings.get("channels", 3), 6, 8, 256)
    z, log_snr = noisy_images(image.channels)
    noise = predicted_noise(score_tree(**settings), z, (-log_snr + 13.3) / (5 + 13.3))
    # x = (z - σ ε) / α and v = α ε - σ x
    alpha, sigma = ((1 / (1 + (-sign * log_snr).exp())).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
    velocity = alpha * noise - sigma * (z - sigma * noise) / alpha
    model = expert(write_vdm(tmp_path / "vdm.flax", **settings), image).double().eval()
    torch.testing.assert_close(model(z, log_snr), velocity, rtol=1e-8, atol=1e-8)


@VARIANTS
def test_contract(tmp_path, settings):
    image = ImageShape(settings.get("channels", 3), 6, 8, 256)
    # narrow: the suite stirs every weight by as much, and a wide layer then amplifies float32's rounding
    config = VdmExpert.Config(path=write_vdm(tmp_path / "vdm.flax", width=32, **settings))
    check_expert(VdmExpert, config, image=image)


def test_time_is_measured_between_the_gammas_of_the_training_config(tmp_path):
    z, log_snr = noisy_images()
    path = write_vdm(tmp_path / "vdm.flax")
    usual, other = (expert(path, gamma_max=g).double().eval()(z, log_snr) for g in (5, 6))
    assert not torch.allclose(usual, other)


def test_range_is_between_the_ends_of_the_schedule(tmp_path):
    fixed = expert(write_vdm(tmp_path / "fixed.flax", gamma=None), gamma_min=-12, gamma_max=4)
    assert fixed.log_snr_range == (-4, 12)
    # γ(t) = b + |w| t
    assert expert(write_vdm(tmp_path / "scalar.flax"), gamma_min=-12, gamma_max=4).log_snr_range == (-5, 13)


def test_ends_of_a_schedule_that_is_a_network_are_computed_from_it(tmp_path):
    gamma = neural_schedule()
    second, bias, third = (np.asarray(gamma[n][k]) for n, k in (("l2", "kernel"), ("l2", "bias"), ("l3", "kernel")))

    def at(t: float) -> float:
        inner = np.tanh((abs(second[0]) * (2 * t - 1) + bias) / 2)
        return -12.5 + 17 * t + float((abs(third[:, 0]) * inner).sum()) / 1024

    low, high = expert(write_vdm(tmp_path / "neural.flax", gamma=gamma)).log_snr_range
    assert math.isclose(low, -at(1))
    assert math.isclose(high, -at(0))


def test_weights_take_part_in_further_training(tmp_path):
    model = expert(write_vdm(tmp_path / "vdm.flax"), dropout=0.3)
    z, log_snr = noisy_images()
    model(z.float(), log_snr.float()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


def test_provenance_states_licence_and_hash(tmp_path):
    path = write_vdm(tmp_path / "vdm.flax")
    assert expert(path).provenance() == {
        "source": "not stated",
        "licence": "Apache-2.0",
        "path": str(path),
        "pixel_grid": "bin centres, (2 i + 1) / L - 1",
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


# the file


def test_arrays_in_chunks_are_read_whole(tmp_path):
    whole = read_flax(write_vdm(tmp_path / "whole.flax"), "ema_params")
    path = write_vdm(tmp_path / "chunks.flax", largest=1000)
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    chunked = read_flax(path, "ema_params")
    assert whole.keys() == chunked.keys()
    assert all(torch.equal(whole[name], chunked[name]) for name in whole)


def test_every_number_type_keeps_its_values(tmp_path):
    values = np.array([[1, 0], [3, 2]])
    tree = {name: values.astype(name) for name in ("float16", "float64", "int32", "uint8", "bool")}
    tensors = read_flax(write_state(tmp_path / "state", {**tree, "scalar": np.float32(1.5)}), "ema_params")
    assert tensors.pop("scalar").item() == 1.5
    assert all(tensor.dtype == getattr(torch, name) for name, tensor in tensors.items())
    assert all(np.array_equal(tensor.numpy(), tree[name]) for name, tensor in tensors.items())


def test_bfloat16_is_read_as_the_numbers_it_stands_for(tmp_path):
    numbers = torch.tensor([1.5, -3.25, 1e-20, 256.0]).bfloat16()
    packed = msgpack.packb(([2, 2], "bfloat16", numbers.view(torch.int16).numpy().tobytes()))
    path = tmp_path / "state"
    path.write_bytes(msgpack.packb({"ema_params": {"a": msgpack.ExtType(1, packed)}}))
    assert torch.equal(read_flax(path, "ema_params")["a"], numbers.float().reshape(2, 2))


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = write_vdm(tmp_path / "vdm.flax")
    path.write_bytes(path.read_bytes()[:kept])
    message = problem(path)
    assert message.startswith(f"{path} is truncated or no checkpoint of flax (")
    assert message.endswith("; download it again")


def test_a_missing_file_and_one_without_averaged_parameters_are_named(tmp_path):
    path = tmp_path / "vdm.flax"
    assert problem(path) == f"{path} cannot be read (No such file or directory); set path to a checkpoint of flax"
    path.write_bytes(msgpack.packb({"params": {}, "step": 1}))
    assert problem(path) == f"{path} holds no tree of tensors under 'ema_params', only: params, step"
    path.write_bytes(msgpack.packb([1]))
    assert problem(path) == f"{path} holds no tree of tensors under 'ema_params', only: list"


def array(shape, name, raw) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, name, raw)))


@pytest.mark.parametrize(
    ("leaf", "complaint"),
    [
        (
            msgpack.ExtType(2, msgpack.packb((1.0, 2.0))),
            "is refused: it holds msgpack's extension 2, which is not an array",
        ),
        (msgpack.ExtType(77, b"cos\nsystem\n."), "is refused: it holds msgpack's extension 77, which is not an array"),
        (array([1], "object", b"\0" * 8), "is refused: it holds an array of object"),
        (array([1], "V8", b"\0" * 8), "is refused: it holds an array of V8"),
        (array([3], "float32", b"\0" * 8), "is truncated or no checkpoint of flax (ValueError"),
        (msgpack.ExtType(1, b"\xc1"), "is truncated or no checkpoint of flax ("),
        ("text", "is refused: it holds a, which is not a tensor but a str"),
        ({"__msgpack_chunked_array__": True}, "is refused: it holds a, whose chunks do not form an array"),
        (
            {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 3},
                "chunks": {"0": array([2], "float32", b"\0" * 8)},
            },
            "is refused: it holds a, whose chunks do not form an array",
        ),
        (
            {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 2},
                "chunks": {"0": array([2], "float32", b"\0" * 8), "2": array([2], "float32", b"\0" * 8)},
            },
            "is refused: it holds a, whose chunks do not form an array",
        ),
    ],
)
def test_what_is_no_array_is_refused_by_name(tmp_path, leaf, complaint):
    path = tmp_path / "vdm.flax"
    path.write_bytes(msgpack.packb({"ema_params": {"a": leaf}}))
    assert problem(path).startswith(f"{path} {complaint}")


# of another network


def with_score_model(path, change):
    tree = score_tree()
    change(tree)
    return write_state(path, {"score_model": tree, "gamma": SCALAR_SCHEDULE})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree: tree.pop("mid.attn_1") and None, "does not fit the network; tensors missing: "),
        (
            lambda tree: tree["up.block_1"].pop("conv2"),
            "tensors missing: up_block_1.conv2.bias, up_block_1.conv2.weight;",
        ),
        (
            lambda tree: tree.update(more={"bias": np.ones(2)}),
            "does not fit the network; tensors unexpected: more.bias",
        ),
        (
            lambda tree: tree["dense1"].update(bias=np.zeros(3, np.float32)),
            "does not fit the network; tensors of another shape: dense1.bias [3] for [256]",
        ),
        (
            lambda tree: tree["dense1"]["bias"].fill(np.nan),
            "tensors with infinite or NaN values: dense1.bias",
        ),
        (
            lambda tree: tree["conv_out"]["kernel"].fill(-np.inf),
            "tensors with infinite or NaN values: conv_out.weight",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, complaint):
    path = with_score_model(tmp_path / "vdm.flax", change)
    message = problem(path)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert message.endswith(ALTERED)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = write_state(tmp_path / "other.flax", {"score_model": {"dense0": {"bias": np.ones(2)}}})
    assert problem(path) == f"{path} is not a score network of VDM: it lacks the convolutions conv_in and conv_out"
    narrow = np.zeros((3, 3, 9, 64), np.float32)
    path = with_score_model(path, lambda tree: tree["conv_in"].update(kernel=narrow))
    assert problem(path) == (
        f"{path} is not a score network of VDM: conv_in maps 9 channels to 64, where the image's 3 or, with Fourier "
        "features, 15 go to a multiple of 32"
    )


def test_images_of_another_number_of_channels_are_refused(tmp_path):
    path = write_vdm(tmp_path / "vdm.flax")
    assert problem(path, ImageShape(1, 8, 8, 256)) == (
        f"{path} is a network for images of 3 channels, not of the data's 1"
    )


@pytest.mark.parametrize(
    ("gamma", "complaint"),
    [
        ({"knots": np.ones(3)}, "has a noise schedule that moeframe does not know, of knots"),
        ({"w": np.ones(2), "b": np.ones(3)}, "has a noise schedule that moeframe does not know, of b, w"),
        ({"w": np.zeros(1), "b": np.ones(1)}, "has a noise schedule from γ = 1 to 1: altered"),
        ({"w": np.array([np.nan]), "b": np.ones(1)}, "has a noise schedule from γ = nan to nan: altered"),
    ],
)
def test_schedules_that_are_none_are_refused(tmp_path, gamma, complaint):
    path = write_vdm(tmp_path / "vdm.flax", gamma=gamma)
    assert problem(path) == f"{path} {complaint}"


def test_gammas_in_the_wrong_order_are_refused(tmp_path):
    with pytest.raises(ValidationError, match=re.escape("gamma_max -14 must be above gamma_min -13.3")):
        VdmExpert.Config(path=tmp_path, gamma_max=-14)
