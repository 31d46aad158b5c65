"""A network of EDM as an expert gives the numbers of EDM."""

import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
from edm_experts import IMAGE, expert, problem
from official_edm import ADM, DDPMPP, NCSNPP, adm_tensors, network, song_tensors, write_edm, write_snapshot
from pydantic import ValidationError

from moeframe.diffusion import velocity_from_image
from moeframe.testing import check_expert
from moeframe_pretrained.edm.expert import EdmExpert

BOTH = pytest.mark.parametrize("arguments", [DDPMPP, NCSNPP], ids=["ddpm++", "ncsn++"])


def noisy_images(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64), torch.linspace(
        -8.7, 12.4, n, dtype=torch.float64
    )


class Reference:
    """The layers of both networks as functions of named tensors, with loops in place of fused operations."""

    def __init__(self, tensors, eps, taps):
        self.t = {name: tensor.double() for name, tensor in tensors.items()}
        self.eps = eps
        taps = torch.tensor(taps, dtype=torch.float64)
        self.taps, self.reach = taps / taps.sum(), (len(taps) - 1) // 2

    def linear(self, name, h):
        return h @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]

    def conv(self, name, h):
        weight = self.t[f"{name}.weight"]
        return F.conv2d(h, weight, self.t.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, name, h):
        channels = h.shape[1]
        grouped = h.reshape(len(h), min(32, channels // 4), -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, correction=0)
        h = ((grouped - mean) / (variance + self.eps).sqrt()).reshape(h.shape)
        return h * self.t[f"{name}.weight"][:, None, None] + self.t[f"{name}.bias"][:, None, None]

    def down(self, h, padding=None):
        h = F.pad(h, [self.reach if padding is None else padding] * 4)
        n = len(self.taps)
        rows = sum(tap * h[:, :, i : h.shape[2] - n + 1 + i : 2] for i, tap in enumerate(self.taps))
        return sum(tap * rows[:, :, :, i : rows.shape[3] - n + 1 + i : 2] for i, tap in enumerate(self.taps))

    def up(self, h):
        spread = h.new_zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3])
        spread[:, :, ::2, ::2] = h
        before = len(self.taps) - 1 - self.reach
        padded = F.pad(spread, [before, self.reach, before, self.reach])
        size = spread.shape[2]
        rows = sum(2 * tap * padded[:, :, i : i + size] for i, tap in enumerate(self.taps.flip(0)))
        return sum(2 * tap * rows[:, :, :, i : i + size] for i, tap in enumerate(self.taps.flip(0)))

    def attended(self, name, h, heads=1):
        flat = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", h)).flatten(2)
        parts = []
        for head in flat.chunk(heads, 1):
            q, k, v = head[:, 0::3], head[:, 1::3], head[:, 2::3]
            weights = torch.einsum("bcq,bck->bqk", q, k / math.sqrt(q.shape[1])).softmax(2)
            parts.append(torch.einsum("bqk,bck->bcq", weights, v))
        return self.conv(f"{name}.proj", torch.cat(parts, 1).reshape(h.shape))


def raw_output(tensors, arguments, x, c_noise, label=None):
    """F of DDPM++ or NCSN++ written as one function of named tensors."""
    r = Reference(tensors, 1e-6, arguments["resample_filter"])
    t, linear, conv, norm, down, up = r.t, r.linear, r.conv, r.norm, r.down, r.up

    def block(name, h, resample=lambda h: h):
        inner = conv(f"{name}.conv0", resample(F.silu(norm(f"{name}.norm0", h))))
        inner = F.silu(norm(f"{name}.norm1", inner + linear(f"{name}.affine", embedding)[:, :, None, None]))
        inner = conv(f"{name}.conv1", inner)
        skip = conv(f"{name}.skip", resample(h)) if f"{name}.skip.weight" in t else h
        h = (inner + skip) / math.sqrt(2)
        return (r.attended(name, h) + h) / math.sqrt(2) if f"{name}.qkv.weight" in t else h

    width = arguments["model_channels"]
    if arguments["embedding_type"] == "positional":
        frequencies = torch.tensor([10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)], dtype=torch.float64)
    else:
        frequencies = 2 * math.pi * t["map_noise.freqs"]
    angles = c_noise[:, None] * frequencies
    features = torch.cat([angles.sin(), angles.cos()], 1)
    if label is not None:
        one_hot = F.one_hot(torch.tensor([label]), arguments["label_dim"]).double()
        features = features + one_hot * math.sqrt(arguments["label_dim"]) @ t["map_label.weight"].T
    embedding = F.silu(linear("map_layer0", features))
    embedding = F.silu(linear("map_layer1", embedding))

    first = conv("enc.8x8_conv", x)
    second = block("enc.8x8_block0", first)
    third = block("enc.4x4_down", second, down)
    if arguments["encoder_type"] == "residual":
        name = "enc.4x4_aux_residual"
        convolved = F.conv2d(x, t[f"{name}.weight"], padding=1 + r.reach)
        third = (third + down(convolved, 0) + t[f"{name}.bias"][:, None, None]) / math.sqrt(2)
    fourth = block("enc.4x4_block0", third)
    h = block("dec.4x4_in1", block("dec.4x4_in0", fourth))
    h = block("dec.4x4_block0", torch.cat([h, fourth], 1))
    h = block("dec.4x4_block1", torch.cat([h, third], 1))
    h = block("dec.8x8_up", h, up)
    h = block("dec.8x8_block0", torch.cat([h, second], 1))
    h = block("dec.8x8_block1", torch.cat([h, first], 1))
    return conv("dec.8x8_aux_conv", F.silu(norm("dec.8x8_aux_norm", h)))


def raw_output_of_adm(tensors, arguments, x, c_noise, label=None):
    """F of ADM in the same way."""
    r = Reference(tensors, 1e-5, [1, 1])

    def block(name, h, resample=lambda h: h):
        inner = r.conv(f"{name}.conv0", resample(F.silu(r.norm(f"{name}.norm0", h))))
        scale, shift = r.linear(f"{name}.affine", embedding)[:, :, None, None].tensor_split(2, 1)
        inner = r.conv(f"{name}.conv1", F.silu(shift + r.norm(f"{name}.norm1", inner) * (1 + scale)))
        skip = r.conv(f"{name}.skip", h) if f"{name}.skip.weight" in r.t else resample(h)
        h = inner + skip
        return h + r.attended(name, h, heads=h.shape[1] // 64) if f"{name}.qkv.weight" in r.t else h

    width = arguments["model_channels"]
    frequencies = torch.tensor([10000 ** (-i / (width // 2)) for i in range(width // 2)], dtype=torch.float64)
    angles = c_noise[:, None] * frequencies
    embedding = r.linear("map_layer1", F.silu(r.linear("map_layer0", torch.cat([angles.cos(), angles.sin()], 1))))
    if label is not None:
        embedding = (
            embedding + F.one_hot(torch.tensor([label]), arguments["label_dim"]).double() @ r.t["map_label.weight"].T
        )
    embedding = F.silu(embedding)

    first = r.conv("enc.8x8_conv", x)
    second = block("enc.8x8_block0", first)
    third = block("enc.4x4_down", second, r.down)
    fourth = block("enc.4x4_block0", third)
    h = block("dec.4x4_in1", block("dec.4x4_in0", fourth))
    h = block("dec.4x4_block0", torch.cat([h, fourth], 1))
    h = block("dec.4x4_block1", torch.cat([h, third], 1))
    h = block("dec.8x8_up", h, r.up)
    h = block("dec.8x8_block0", torch.cat([h, second], 1))
    h = block("dec.8x8_block1", torch.cat([h, first], 1))
    return r.conv("out_conv", F.silu(r.norm("out_norm", h)))


CONDITIONAL = {**DDPMPP, "label_dim": 5}
NETWORKS = {
    "ddpm++": (DDPMPP, song_tensors, raw_output, None),
    "ncsn++": (NCSNPP, song_tensors, raw_output, None),
    "ddpm++ of a class": (CONDITIONAL, song_tensors, raw_output, 3),
    "adm of a class": (ADM, adm_tensors, raw_output_of_adm, 2),
    "adm": ({**ADM, "label_dim": 0}, adm_tensors, raw_output_of_adm, None),
}


@pytest.mark.parametrize(("arguments", "tensors_of", "reference", "label"), NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_velocity_is_that_of_the_denoiser_of_edms_table_1_on_edms_pixel_grid(
    tmp_path, arguments, tensors_of, reference, label
):
    z, log_snr = noisy_images()
    # their pixel is 256/255 of ours, and so is the noise of the same noisy image
    alpha, c = log_snr.sigmoid().sqrt(), 256 / 255
    y, noise = c * z / alpha.view(-1, 1, 1, 1), c * (-log_snr / 2).exp()
    c_skip, c_out = 0.25 / (noise**2 + 0.25), noise * 0.5 / (noise**2 + 0.25).sqrt()
    c_in = 1 / (noise**2 + 0.25).sqrt()
    c_skip, c_out, c_in = (factor.view(-1, 1, 1, 1) for factor in (c_skip, c_out, c_in))
    output = reference(tensors_of(arguments), arguments, c_in * y, noise.log() / 4, label)
    denoised = (c_skip * y + c_out * output) / c
    model = expert(write_edm(tmp_path / "edm.pkl", arguments), label=label).double().eval()
    torch.testing.assert_close(
        model(z, log_snr), velocity_from_image(denoised, z, log_snr), rtol=1e-6, atol=1e-6, check_dtype=True
    )


@torch.no_grad()
def test_a_conditional_network_is_another_expert_for_each_class(tmp_path):
    path, (z, log_snr) = write_edm(tmp_path / "edm.pkl", ADM), noisy_images()
    one, two = (expert(path, label=label).double().eval()(z, log_snr) for label in (0, 4))
    assert float((one - two).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "label", "complaint"),
    [
        (
            ADM,
            None,
            "is conditional on 5 classes, and an expert sees the noisy image and its noise level alone; choose "
            "one class for this expert, label: 0 .. 4",
        ),
        (ADM, 5, "label 5, but the network has classes 0 .. 4"),
        (DDPMPP, 0, "label 0, but the network has no classes; leave label out"),
    ],
)
def test_a_class_that_does_not_fit_the_network_is_refused(tmp_path, arguments, label, complaint):
    assert complaint in problem(write_edm(tmp_path / "edm.pkl", arguments), label=label)


def test_widths_without_whole_heads_are_refused(tmp_path):
    narrow = {**ADM, "model_channels": 40}
    assert "80 channels at 4 pixels are not a multiple of 64" in problem(
        write_edm(tmp_path / "edm.pkl", narrow), label=0
    )


@BOTH
def test_contract(tmp_path, arguments):
    config = EdmExpert.Config(path=write_edm(tmp_path / "edm.pkl", arguments))
    check_expert(EdmExpert, config, image=IMAGE)


def test_another_sigma_data_is_the_checkpoints(tmp_path):
    z, log_snr = noisy_images()
    usual, other = (
        expert(write_edm(tmp_path / f"{s}.pkl", sigma_data=s)).double().eval()(z, log_snr) for s in (0.5, 0.7)
    )
    assert not torch.allclose(usual, other)


def test_range_is_edms_nominal_one_on_its_pixel_grid(tmp_path):
    low, high = expert(write_edm(tmp_path / "edm.pkl")).log_snr_range
    assert math.isclose(math.exp(-low / 2) * 256 / 255, 80)
    assert math.isclose(math.exp(-high / 2) * 256 / 255, 0.002)


def test_a_checkpoint_with_narrower_bounds_narrows_the_range(tmp_path):
    path = write_edm(tmp_path / "edm.pkl", sigma_min=0.01, sigma_max=10)
    low, high = expert(path).log_snr_range
    assert math.isclose(math.exp(-low / 2) * 256 / 255, 10)
    assert math.isclose(math.exp(-high / 2) * 256 / 255, 0.01)
    assert problem(path, sigma_min=20).startswith(f"{path}: no noise level is above sigma_min (20) and below")


def test_weights_take_part_in_further_training_and_dropout_is_the_checkpoints(tmp_path):
    model = expert(write_edm(tmp_path / "edm.pkl"))
    z, log_snr = noisy_images()
    model(z.float(), log_snr.float()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.13}


def test_provenance_states_licence_and_hash(tmp_path):
    path = write_edm(tmp_path / "edm.pkl")
    stated = expert(path, source="https://example.org/edm.pkl").provenance()
    assert stated == {
        "source": "https://example.org/edm.pkl",
        "licence": "CC BY-NC-SA 4.0 (non-commercial)",
        "path": str(path),
        "pixel_grid": "both ends, 2 i / (L - 1) - 1",
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("protocol", [3, 5])
def test_other_protocols_of_pickle_are_read_the_same(tmp_path, protocol):
    z, log_snr = noisy_images()
    usual = expert(write_edm(tmp_path / "edm.pkl")).double().eval()
    snapshot = network(song_tensors(DDPMPP), DDPMPP)
    other = expert(write_snapshot(tmp_path / "other.pkl", snapshot, protocol=protocol)).double().eval()
    assert torch.equal(usual(z, log_snr), other(z, log_snr))


def test_noise_levels_in_the_wrong_order_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="sigma_max 1 must be above sigma_min 2"):
        EdmExpert.Config(path=tmp_path, sigma_min=2, sigma_max=1)
