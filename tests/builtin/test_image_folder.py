"""Folders of images: decoding, classes, split and what is refused."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_folders import all_images, image_folder, write_image

from moeframe.errors import DataError
from moeframe_builtin.datasets.image_folder import is_test


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, n in (("train", 3), ("test", 2)):
        for label, red in (("cats", 50), ("dogs", 200)):
            for i in range(n):
                write_image(tmp_path / split / label / "nested" / f"{i}.png", color=(red, i, 0))
    return tmp_path


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
    (folder / train.names[0]).write_bytes(b"broken")
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
    assert (image.int() - 128).abs().max() <= 8  # a pixel picked without averaging would be off by 127


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
    dataset = image_folder(tmp_path, other_modes="convert")
    assert dataset.split("train").images(torch.tensor([0]))[0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize(("mode", "color"), [("RGBA", (1, 2, 3, 0)), ("LA", (5, 0)), ("P", 0), ("CMYK", (1, 2, 3, 4))])
def test_an_image_that_is_neither_grey_nor_rgb_is_refused_with_its_name_unless_asked_for(tmp_path, mode, color):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    for split in ("train", "test"):
        write_image(tmp_path / split / name, mode=mode, color=color)
        write_image(tmp_path / split / "b.png")
    with pytest.raises(DataError) as error:
        image_folder(tmp_path).split("train").images(torch.tensor([0, 1]))
    words = f"image {tmp_path}/train/{name} is neither grey nor RGB (mode {mode}); convert it, or set "
    assert str(error.value).startswith(f"{words}dataset.other_modes: convert")
    skipping = image_folder(tmp_path, on_corrupt="skip")
    assert len(skipping.split("train")) == 1
    assert skipping.card()["left_out"]["images that cannot be decoded"][0].startswith(words)


def test_deep_and_transparent_images_are_refused_whatever_mode_pillow_gives_them(tmp_path):
    deep = tmp_path / "train/deep.png"
    write_image(deep)
    write_image(tmp_path / "test/a.png")
    pixels = np.full((8, 8, 3), 40000, dtype=">u2")
    deep.write_bytes(png_of(pixels, bit_depth=16))
    with pytest.raises(DataError) as error:
        image_folder(tmp_path).split("train").images(torch.tensor([0]))
    assert str(error.value) == f"image {deep} has more than 8 bits per channel (mode RGB;16B); convert it to 8 bits"
    Image.new("RGB", (8, 8)).save(deep, transparency=(0, 0, 0))
    with pytest.raises(DataError, match=r"neither grey nor RGB \(mode RGB with transparency\); convert it, or set"):
        image_folder(tmp_path).split("train").images(torch.tensor([0]))
    assert len(image_folder(tmp_path, other_modes="convert").split("train").images(torch.tensor([0]))) == 1


def png_of(pixels: np.ndarray, bit_depth: int) -> bytes:
    """RGB as a PNG file of any depth, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_nested_folders_are_classes_of_their_own_where_asked_for(tmp_path):
    for split in ("train", "test"):
        for name in ("cat/tabby/1.png", "cat/black/1.png", "dog/1.png"):
            write_image(tmp_path / split / name)
    assert image_folder(tmp_path).split("train").label_names == ("cat", "dog")
    nested = image_folder(tmp_path, labels="nested").split("test")
    assert nested.label_names == ("cat/black", "cat/tabby", "dog")
    assert nested.labels.tolist() == [0, 1, 2]


def test_a_palette_with_transparency_becomes_rgb(tmp_path):
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([4, 5, 6, 0, 0, 0])
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        palette.save(tmp_path / split / "a.png", transparency=b"\x80\xff")
    dataset = image_folder(tmp_path, other_modes="convert")
    assert dataset.split("train").images(torch.tensor([0]))[0, :, 0, 0].tolist() == [4, 5, 6]


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


def test_hidden_files_and_other_extensions_are_ignored_files(folder):
    (folder / "train" / "notes.txt").write_text("x")
    (folder / "train" / "cats" / "._0.png").write_text("x")
    write_image(folder / "train" / ".cache" / "0.png")
    write_image(folder / "train" / "cats" / "SHOUT.JPG")
    assert image_folder(folder).split("train").names[0] == "train/cats/SHOUT.JPG"
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
    assert str(error.value) == f"image {path} is not in an image format that Pillow reads; replace or delete it"


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
    assert str(image_folder(path).missing()).startswith(f"image_folder: root {path} is neither a folder nor a .zip; ")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    expected = f"image_folder: {tmp_path} holds no images (.bmp .jpeg .jpg .png .tif .tiff .webp); put some there"
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
    (part,) = (name for name in ("train", "test") if is_test("a.png", 0.1) == (name == "train"))
    assert image_folder(tmp_path).missing() == (
        f"image_folder: no {part} images: none of 1 is in it; "
        "add images, change dataset.test_fraction, or make train/ and test/ folders"
    )


def test_adding_a_file_moves_no_other_file_between_the_splits(tmp_path):
    for i in range(40):
        write_image(tmp_path / "cats" / f"{i}.png", size=(2, 2))
    before = {name: image_folder(tmp_path).split(name).names for name in ("train", "test")}
    write_image(tmp_path / "cats" / "another.png", size=(2, 2))
    after = {name: image_folder(tmp_path).split(name).names for name in ("train", "test")}
    assert sum(map(len, before.values())) == 40
    for name, files in before.items():
        assert [file for file in after[name] if file != "cats/another.png"] == list(files)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_about_the_given_fraction_is_held_out(fraction):
    n = 2000
    held_out = sum(is_test(f"cats/{i}.png", fraction) for i in range(n))
    assert abs(held_out - fraction * n) < 5 * math.sqrt(n * fraction * (1 - fraction))


def test_a_file_that_changes_changes_the_cards_hash(folder):
    before = image_folder(folder).card()["files"]
    assert image_folder(folder).card()["files"] == before
    write_image(folder / "train" / "cats" / "nested" / "0.png", color=(51, 0, 0))
    changed = image_folder(folder).card()["files"]
    assert [changed[key] == before[key] for key in before] == [False, True]
