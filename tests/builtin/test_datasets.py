"""The built-in datasets: splits, cards, and what a user reads when the data is missing or broken."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from small_folders import all_images, image_folder, write_image

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Dataset
from moeframe_builtin.datasets import photo_patches
from moeframe_builtin.datasets.digits import Digits
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.datasets.photo_patches import MIN_CONTRAST, PHOTOS, Photo, PhotoPatches, contrast


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, n in (("train", 3), ("test", 2)):
        for label, red in (("cats", 50), ("dogs", 200)):
            for i in range(n):
                write_image(tmp_path / split / label / "nested" / f"{i}.png", color=(red, i, 0))
    return tmp_path


@pytest.fixture(params=["digits", "gaussian", "photo_patches", "image_folder"])
def dataset(request, folder) -> Dataset:
    return {
        "digits": lambda: Digits(Digits.Config()),
        "gaussian": lambda: Gaussian(Gaussian.Config(n_train=50, n_test=20)),
        "photo_patches": lambda: PhotoPatches(PhotoPatches.Config(size=32, downscale=4)),
        "image_folder": lambda: image_folder(folder),
    }[request.param]()


def test_images_are_integers_of_the_declared_shape_and_range(dataset):
    for name in ("train", "test"):
        examples = dataset.split(name)
        images = all_images(examples)
        assert images.shape == (len(examples), *dataset.image.tensor_shape)
        assert images.dtype == torch.long
        assert images.min() >= 0
        assert images.max() < dataset.image.levels
        assert len(examples.labels) == len(examples)
        assert examples.labels.max() < len(examples.label_names)


def test_card_is_json_and_states_what_the_splits_are(dataset):
    card = dataset.card()
    assert json.loads(json.dumps(card)) == card
    assert card["splits"] == {name: len(dataset.split(name)) for name in ("train", "test")}
    assert card["levels"] == dataset.image.levels
    assert all(card[key] for key in ("source", "licence", "split_rule", "labels", "transformations"))


def test_complete_data_lacks_nothing(dataset):
    assert dataset.missing() is None


def test_two_readings_are_equal(dataset):
    again = type(dataset)(dataset.config)
    for name in ("train", "test"):
        assert torch.equal(all_images(dataset.split(name)), all_images(again.split(name)))


def test_no_images_are_an_empty_batch(dataset):
    none = torch.empty(0, dtype=torch.long)
    assert dataset.split("train").images(none).shape == (0, *dataset.image.tensor_shape)


# digits


def test_digits_splits_hold_every_image_of_the_source_once():
    from sklearn.datasets import load_digits

    digits = Digits(Digits.Config())
    train, test = digits.split("train"), digits.split("test")
    assert (len(train), len(test)) == (1348, 449)
    rows = torch.cat([all_images(train), all_images(test)]).flatten(1)
    rows = torch.cat([rows, torch.cat([train.labels, test.labels]).unsqueeze(1)], dim=1)
    source = load_digits()
    assert sorted(rows.tolist()) == sorted(np.column_stack([source.data, source.target]).astype(int).tolist())


def test_a_larger_test_fraction_keeps_the_images_already_held_out():
    small = all_images(Digits(Digits.Config(test_fraction=0.1)).split("test"))
    large = all_images(Digits(Digits.Config(test_fraction=0.3)).split("test"))
    assert torch.equal(large[: len(small)], small)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_test_fraction_that_empties_a_split_is_refused(fraction):
    with pytest.raises(ValidationError, match="test_fraction"):
        Digits.Config(test_fraction=fraction)


# photo_patches


def test_32_pixel_patches_number_over_1200():
    splits = PhotoPatches(PhotoPatches.Config(size=32)).card()["splits"]
    assert splits == {"train": 1713, "test": 499}


def test_every_photo_is_in_both_splits_and_no_patch_is_flat():
    dataset = PhotoPatches(PhotoPatches.Config(size=16))
    for name in ("train", "test"):
        examples = dataset.split(name)
        assert examples.labels.unique().tolist() == list(range(len(PHOTOS)))
        assert contrast(all_images(examples)).min() >= MIN_CONTRAST


def test_contrast_is_the_mean_over_channels_of_the_standard_deviation():
    patch = torch.zeros(1, 3, 2, 2, dtype=torch.long)
    patch[0, 0, 0] = 10  # half of one channel: its standard deviation is 5
    assert contrast(patch).tolist() == [pytest.approx(5 / 3)]


@pytest.fixture
def ramp(tmp_path, monkeypatch) -> Path:
    """One photo whose pixel says where it lies: red is the column, green the row; checks in blue give contrast."""
    rows, columns = np.mgrid[0:24, 0:100]
    pixels = np.stack([columns, rows, 255 * ((rows + columns) % 2)], axis=-1).astype(np.uint8)
    path = tmp_path / "ramp.png"
    Image.fromarray(pixels).save(path)
    monkeypatch.setattr(photo_patches, "PHOTOS", (Photo("ramp", "skimage", str(path), "us", "CC0"),))
    return path


def test_test_patches_lie_right_of_the_train_patches_with_a_patch_between(ramp):
    dataset = PhotoPatches(PhotoPatches.Config(size=8))
    train, test = (all_images(dataset.split(name)) for name in ("train", "test"))
    assert (len(train), len(test)) == (3 * 8, 3 * 3)  # 12 columns: 8 train, 1 unused, 3 test
    assert train[:, 0].unique().tolist() == list(range(64))
    assert test[:, 0].unique().tolist() == list(range(72, 96))


def test_a_patch_is_an_upright_piece_of_the_photo(ramp):
    train = all_images(PhotoPatches(PhotoPatches.Config(size=8)).split("train"))
    pixels = torch.from_numpy(np.array(Image.open(ramp))).long()
    assert torch.equal(train[9].permute(1, 2, 0), pixels[8:16, 8:16])  # 8 columns a row: number 9 is row 1, column 1


def test_downscale_takes_the_mean_of_each_block(ramp):
    rows, columns = np.mgrid[0:32, 0:128]
    pixels = np.stack([columns, 40 * (rows // 4), rows * 0], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(ramp)
    train = all_images(PhotoPatches(PhotoPatches.Config(size=8, downscale=2)).split("train"))
    # the mean of columns 2i and 2i+1 is 2i + 0.5; rows pair within bands of equal value
    assert ((train[0, 0, 0] - 2 * torch.arange(8) - 0.5).abs() == 0.5).all()
    assert train[0, 1, :, 0].tolist() == [0, 0, 40, 40, 80, 80, 120, 120]


def test_a_photo_that_is_not_in_the_wheel_is_named(monkeypatch):
    absent = Photo("moonrise", "skimage", "data/moonrise.png", "us", "CC0")
    monkeypatch.setattr(photo_patches, "PHOTOS", (*PHOTOS, absent))
    dataset = PhotoPatches(PhotoPatches.Config())
    message = (
        "photo 'moonrise': the installed skimage has no data/moonrise.png; "
        "reinstall it from PyPI, whose wheel carries the photo"
    )
    assert dataset.missing() == message
    with pytest.raises(DataError) as error:
        dataset.split("train")
    assert str(error.value) == message


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    absent = Photo("x", "no_such_package_here", "x.png", "us", "CC0")
    monkeypatch.setattr(photo_patches, "PHOTOS", (absent,))
    assert "the installed no_such_package_here has no x.png" in str(PhotoPatches(PhotoPatches.Config()).missing())


def test_a_damaged_photo_is_named(ramp):
    ramp.write_bytes(ramp.read_bytes()[:100])
    with pytest.raises(DataError, match=r"ramp\.png cannot be decoded .*; reinstall skimage"):
        PhotoPatches(PhotoPatches.Config()).split("train")


# image_folder


# gaussian


@settings(deadline=None)
@given(levels=st.integers(2, 300), std=st.floats(0.01, 20))
def test_gaussian_probabilities_sum_to_one_and_are_symmetric(levels, std):
    dataset = Gaussian(Gaussian.Config(levels=levels, std=std, size=1, n_train=1, n_test=1))
    bits = dataset.bits_per_dim(torch.arange(levels).reshape(-1, 1, 1, 1))
    p = torch.exp2(-bits)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert torch.equal(bits, bits.flip(0))
    assert 0 <= dataset.entropy_bits_per_dim <= math.log2(levels) + 1e-9


def test_gaussian_probability_is_the_normal_mass_of_the_bin():
    dataset = Gaussian(Gaussian.Config(levels=4, std=0.5, size=1))
    cdf = [0.0, 0.15865525393145707, 0.5, 0.8413447460685429, 1.0]  # of N(0, 1) at -inf, -1, 0, 1, inf
    expected = [-math.log2(b - a) for a, b in itertools.pairwise(cdf)]
    assert dataset.bits_per_dim(torch.arange(4).reshape(4, 1, 1, 1)).tolist() == pytest.approx(expected, abs=1e-12)


def test_gaussian_draws_follow_the_stated_density():
    dataset = Gaussian(Gaussian.Config(levels=17, std=0.4, size=8, n_train=2000))
    train = dataset.split("train")
    images = all_images(train)
    p = torch.exp2(-dataset.bits_per_dim(torch.arange(17).reshape(17, 1, 1, 1).expand(17, 1, 8, 8)))
    n = images.numel()
    frequency = images.flatten().bincount(minlength=17) / n
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-9).all()
    bits = dataset.bits_per_dim(images)
    assert abs(float(bits.mean()) - dataset.entropy_bits_per_dim) < 5 * float(bits.std()) / math.sqrt(len(bits))


def test_entropy_of_a_fine_quantisation_nears_the_differential_entropy():
    std, levels = 0.2, 256
    expected = 0.5 * math.log2(2 * math.pi * math.e * std**2) + math.log2(levels / 2)
    assert Gaussian(Gaussian.Config(std=std)).entropy_bits_per_dim == pytest.approx(expected, abs=1e-3)


def test_gaussian_train_and_test_are_different_draws():
    dataset = Gaussian(Gaussian.Config(n_train=10, n_test=10))
    assert not torch.equal(all_images(dataset.split("train")), all_images(dataset.split("test")))
