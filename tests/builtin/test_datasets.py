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

from moeframe.errors import DataError
from moeframe.interfaces.dataset import Dataset, Examples, in_batches
from moeframe_builtin.datasets import photo_patches
from moeframe_builtin.datasets.digits import Digits
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.datasets.image_folder import ImageFolder, is_held_out
from moeframe_builtin.datasets.photo_patches import MIN_CONTRAST, PHOTOS, Photo, PhotoPatches, contrast


def all_images(examples: Examples) -> torch.Tensor:
    return torch.cat([images for _, images in in_batches(examples)])


def write_image(path: Path, *, size=(12, 12), color=(10, 20, 30), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def image_folder(root: Path, **settings) -> ImageFolder:
    return ImageFolder(ImageFolder.Config(root=root, **{"size": 8, **settings}))


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


def test_labels_are_the_outermost_class_folders_and_agree_between_splits(folder):
    write_image(folder / "test" / "ants" / "a.png")
    dataset = image_folder(folder)
    train, test = dataset.split("train"), dataset.split("test")
    assert train.label_names == test.label_names == ("ants", "cats", "dogs")
    assert train.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert test.labels.tolist() == [0, 1, 1, 2, 2]
    assert train.images(torch.tensor([4, 0]))[:, :2, 0, 0].tolist() == [[200, 1], [50, 0]]


def test_images_are_decoded_when_they_are_fetched_and_not_before(folder):
    train = image_folder(folder).split("train")
    train.files[0].path.write_bytes(b"broken")
    assert train.images(torch.tensor([1])).shape == (1, 3, 8, 8)
    with pytest.raises(DataError):
        train.images(torch.tensor([0]))


def test_the_centre_square_is_kept(tmp_path):
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = (7, 8, 9)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels).save(tmp_path / split / "wide.png")
    image = image_folder(tmp_path).split("train").images(torch.tensor([0]))[0]
    assert torch.equal(image, torch.tensor([7, 8, 9])[:, None, None].expand(3, 8, 8))


def test_shrinking_is_antialiased(tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels).save(tmp_path / split / "stripes.png")
    image = image_folder(tmp_path).split("train").images(torch.tensor([0]))
    assert (image - 128).abs().max() <= 8  # a pixel picked without averaging would be off by 127


def test_exif_orientation_is_obeyed(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels).save(tmp_path / split / "turned.png", exif=exif)
    image = image_folder(tmp_path).split("train").images(torch.tensor([0]))[0]
    assert image[0, :, 0].tolist() == [0] * 7 + [255]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [("L", 9, [9, 9, 9]), ("RGBA", (1, 2, 3, 0), [1, 2, 3]), ("LA", (5, 0), [5, 5, 5]), ("1", 1, [255, 255, 255])],
)
def test_other_modes_become_rgb(tmp_path, mode, color, expected):
    for split in ("train", "test"):
        write_image(tmp_path / split / "a.png", mode=mode, color=color)
    assert image_folder(tmp_path).split("train").images(torch.tensor([0]))[0, :, 0, 0].tolist() == expected


def test_a_palette_with_transparency_becomes_rgb(tmp_path):
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([4, 5, 6, 0, 0, 0])
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        palette.save(tmp_path / split / "a.png", transparency=b"\x80\xff")
    assert image_folder(tmp_path).split("train").images(torch.tensor([0]))[0, :, 0, 0].tolist() == [4, 5, 6]


def test_one_channel_is_grey(folder):
    dataset = image_folder(folder, channels=1)
    expected = Image.new("RGB", (1, 1), (50, 0, 0)).convert("L").getpixel((0, 0))
    assert dataset.split("train").images(torch.tensor([0])).unique().tolist() == [expected]


def test_16_bit_images_are_refused(folder):
    path = folder / "train" / "cats" / "deep.png"
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path)
    with pytest.raises(DataError) as error:
        all_images(image_folder(folder).split("train"))
    assert str(error.value) == f"image {path} has more than 8 bits per channel (mode I;16); convert it to 8 bits"


def test_hidden_files_and_other_extensions_are_passed_over(folder):
    (folder / "train" / "notes.txt").write_text("x")
    (folder / "train" / "cats" / "._0.png").write_text("x")
    write_image(folder / "train" / ".cache" / "0.png")
    write_image(folder / "train" / "cats" / "SHOUT.JPG")
    assert [file.name for file in image_folder(folder).split("train").files][:1] == ["cats/SHOUT.JPG"]
    assert image_folder(folder).card()["splits"]["train"] == 7


def test_a_zero_byte_image_is_named(folder):
    path = folder / "train" / "cats" / "empty.png"
    path.touch()
    with pytest.raises(DataError) as error:
        all_images(image_folder(folder).split("train"))
    assert str(error.value) == f"image {path} is empty (0 bytes); replace or delete it"


def test_a_truncated_image_is_named(folder):
    path = folder / "train" / "cats" / "0.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError) as error:
        all_images(image_folder(folder).split("train"))
    assert str(error.value).startswith(f"image {path} cannot be decoded (OSError: image file is truncated")
    assert str(error.value).endswith("; replace or delete it")


def test_a_file_that_is_no_image_is_named(folder):
    path = folder / "test" / "dogs" / "page.png"
    path.write_text("<html>")
    with pytest.raises(DataError) as error:
        all_images(image_folder(folder).split("test"))
    assert str(error.value).startswith(f"image {path} cannot be decoded (UnidentifiedImageError: ")


@settings(max_examples=30, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), length=st.integers(0, 10_000))
def test_damaged_bytes_never_raise_anything_but_a_data_error(tmp_path_factory, position, value, length):
    root = tmp_path_factory.mktemp("damaged")
    for name in ("train/a.png", "test/a.webp"):
        path = write_image(root / name, size=(40, 40))
        content = bytearray(path.read_bytes())
        content[position % len(content)] = value
        path.write_bytes(bytes(content[: 1 + length % len(content)]))
    dataset = image_folder(root)
    for name in ("train", "test"):
        try:
            images = all_images(dataset.split(name))
        except DataError as error:
            assert str(root) in str(error)  # noqa: PT017  (either outcome is right)
        else:
            assert images.shape == (1, 3, 8, 8)


def test_a_missing_root_says_where_to_put_the_images(tmp_path):
    dataset = image_folder(tmp_path / "photos")
    message = f"image_folder: root {tmp_path}/photos does not exist; put the images there or set dataset.root"
    assert dataset.missing() == message
    with pytest.raises(DataError) as error:
        dataset.split("train")
    assert str(error.value) == message
    write_image(tmp_path / "photos" / "train" / "a.png")
    write_image(tmp_path / "photos" / "test" / "a.png")
    assert dataset.missing() is None


def test_a_root_that_is_a_file_is_refused(tmp_path):
    path = write_image(tmp_path / "a.png")
    assert str(image_folder(path).missing()).startswith(f"image_folder: root {path} is not a folder; ")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    expected = f"image_folder: {tmp_path} holds no images (.bmp .jpeg .jpg .png .webp); put some there"
    assert image_folder(tmp_path).missing() == expected


def test_an_empty_split_folder_is_refused(tmp_path):
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "test").mkdir()
    assert image_folder(tmp_path).missing() == f"image_folder: no test images: put some into {tmp_path}/test"


def test_half_a_pair_of_split_folders_is_refused(tmp_path):
    write_image(tmp_path / "train" / "a.png")
    expected = f"image_folder: {tmp_path} has train/ but no test/; add it, or rename train/"
    assert image_folder(tmp_path).missing() == expected


def test_a_tree_too_small_to_split_says_so(tmp_path):
    write_image(tmp_path / "a.png")
    (part,) = (name for name in ("train", "test") if is_held_out("a.png", 0.1) == (name == "train"))
    assert image_folder(tmp_path).missing() == (
        f"image_folder: no {part} images: of 1 none fell there; "
        "add images, change dataset.test_fraction, or make train/ and test/ folders"
    )


def test_adding_a_file_moves_no_other_file_between_the_splits(tmp_path):
    for i in range(40):
        write_image(tmp_path / "cats" / f"{i}.png", size=(2, 2))
    before = {name: [file.name for file in image_folder(tmp_path).split(name).files] for name in ("train", "test")}
    write_image(tmp_path / "cats" / "another.png", size=(2, 2))
    after = {name: [file.name for file in image_folder(tmp_path).split(name).files] for name in ("train", "test")}
    assert sum(map(len, before.values())) == 40
    for name, files in before.items():
        assert [file for file in after[name] if file != "cats/another.png"] == files


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_about_the_given_fraction_is_held_out(fraction):
    n = 2000
    held_out = sum(is_held_out(f"cats/{i}.png", fraction) for i in range(n))
    assert abs(held_out - fraction * n) < 5 * math.sqrt(n * fraction * (1 - fraction))


def test_files_that_change_change_the_cards_listing(folder):
    before = image_folder(folder).card()["listing_sha256"]
    assert image_folder(folder).card()["listing_sha256"] == before
    write_image(folder / "train" / "cats" / "new.png")
    assert image_folder(folder).card()["listing_sha256"] != before


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
