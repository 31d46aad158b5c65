"""CelebA-HQ: what is read, split, attributes, the card, and images that do not fit."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from celeba_hq_files import ATTRIBUTES, IMAGES, MAPPING, PARTITION, celeba_hq, problem
from official_celeba_hq import COLUMNS, write_celeba_hq
from PIL import Image

from moeframe.errors import DataError
from moeframe.interfaces.dataset import SPLITS
from moeframe.randomness import Streams
from moeframe.testing import check_dataset
from moeframe_builtin.datasets.celeba_hq import CelebAHq
from moeframe_builtin.slicers.attribute import Attribute


def numbers(dataset: CelebAHq, split: str) -> list[int]:
    return [int(Path(name).stem) for name in dataset.split(split).names]


@pytest.fixture
def root(tmp_path) -> Path:
    """24 faces of 32x32 pixels: 20 train, 2 validation, 2 test."""
    return write_celeba_hq(tmp_path, size=32)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_it_honours_the_contract_of_datasets(tmp_path, zipped):
    root = write_celeba_hq(tmp_path, size=32, zipped=zipped)
    check_dataset(CelebAHq, CelebAHq.Config(root=root, size=16, verify=False))


def test_a_folder_and_a_zip_give_equal_images_names_and_attributes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    folder = celeba_hq(write_celeba_hq(tmp_path / "a", size=32))
    archive = celeba_hq(write_celeba_hq(tmp_path / "b", size=32, zipped=True))
    for name in SPLITS:
        one, other = folder.split(name), archive.split(name)
        assert one.names == other.names
        indices = torch.arange(len(one))
        assert torch.equal(one.images(indices), other.images(indices))
        assert all(torch.equal(values, other.attributes[key]) for key, values in one.attributes.items())
    assert folder.card()["files"] == archive.card()["files"]


def test_images_equal_those_that_pillow_shrinks(root):
    train = celeba_hq(root).split("train")
    assert train.names[9] == f"{IMAGES}/11.jpg"
    with Image.open(root / IMAGES / "11.jpg") as file:
        expected = np.array(file.resize((16, 16), Image.Resampling.LANCZOS))
    assert torch.equal(train.images(torch.tensor([9]))[0], torch.tensor(expected).permute(2, 0, 1).long())


def test_images_of_the_size_asked_for_are_not_touched(root):
    dataset = celeba_hq(root, size=32)
    with Image.open(root / IMAGES / "0.jpg") as file:
        expected = np.array(file)
    assert torch.equal(dataset.split("train").images(torch.tensor([0]))[0], torch.tensor(expected).permute(2, 0, 1))
    assert {"JPEG of 32x32", "neither cropped nor resized"} <= set(dataset.card()["transformations"])


def test_a_source_of_1024_pixels_is_shrunk_with_antialiasing(tmp_path):
    root = write_celeba_hq(tmp_path, n=10, size=1024)
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(root / IMAGES / "0.jpg", quality=95)
    dataset = celeba_hq(root, size=256)
    assert dataset.image.tensor_shape == (3, 256, 256)
    image = dataset.split("train").images(torch.tensor([0]))
    inside = image.int()[..., 2:-2]  # at the sides the filter is cut off
    assert (inside - 128).abs().max() <= 8  # a pixel picked without averaging would be off by 127
    assert "JPEG of 1024x1024" in dataset.card()["transformations"]


def test_pngs_with_five_digits_in_a_folder_of_their_own_are_read(root):
    (root / "celeba_hq_256").mkdir()
    for path in (root / IMAGES).iterdir():
        with Image.open(path) as file:
            file.save(root / "celeba_hq_256" / f"{int(path.stem):05d}.png")
    jpegs = celeba_hq(root / "CelebAMask-HQ", partition=root / PARTITION)
    expected = {name: jpegs.split(name).images(torch.arange(2)) for name in SPLITS}
    for path in (root / IMAGES).iterdir():
        path.unlink()
    dataset = celeba_hq(root)
    assert dataset.split("train").names[0] == "celeba_hq_256/00000.png"
    assert all(torch.equal(dataset.split(name).images(torch.arange(2)), expected[name]) for name in SPLITS)
    assert "PNG of 32x32" in dataset.card()["transformations"]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("P", 0, [4, 5, 6]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
        ("LA", (5, 0), [5, 5, 5]),
        ("L", 9, [9, 9, 9]),
        ("I;16", 40000, "has more than 8 bits per channel (mode I;16); convert it to 8 bits"),
    ],
)
def test_other_modes_become_rgb_or_are_refused(root, mode, colour, expected):
    path = root / IMAGES / ("0.jpg" if mode == "CMYK" else "0.png")
    (root / IMAGES / "0.jpg").unlink()
    image = Image.new(mode, (32, 32), colour)
    if mode == "P":
        image.putpalette([4, 5, 6, 0, 0, 0])
    image.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    train = celeba_hq(root, other_modes="convert").split("train")
    if isinstance(expected, str):
        with pytest.raises(DataError) as error:
            train.images(torch.tensor([0]))
        assert str(error.value) == f"image {path} {expected}"
    else:
        assert train.images(torch.tensor([0]))[0, :, 0, 0].tolist() == expected


def test_images_are_in_order_of_their_number(root):
    assert numbers(celeba_hq(root), "train")[:10] == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]


def test_masks_and_other_files_are_passed_over(root):
    (root / IMAGES / "thumbnail.jpg").write_text("x")
    (root / IMAGES / "12.txt").write_text("x")
    (root / IMAGES / "0_skin.png").write_text("x")
    assert sum(celeba_hq(root).card()["splits"].values()) == 22


def test_every_face_has_the_same_label(root):
    train = celeba_hq(root).split("train")
    assert train.label_names == ("face",)
    assert train.labels.tolist() == [0] * 20


def test_a_split_survives_pickling_to_a_worker(tmp_path):
    train = celeba_hq(write_celeba_hq(tmp_path, size=32, zipped=True)).split("train")
    train.images(torch.tensor([3]))
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again.images(torch.tensor([3])), train.images(torch.tensor([3])))


# --- split and attributes ---------------------------------------------------------------------------------------------


def test_the_split_is_the_join_of_mapping_and_partition(root):
    parts = dict(line.split() for line in (root / PARTITION).read_text().splitlines())
    files = [line.split() for line in (root / MAPPING).read_text().splitlines()[1:]]
    dataset = celeba_hq(root)
    for name, number in (("train", "0"), ("test", "2")):
        assert numbers(dataset, name) == [int(index) for index, _, file in files if parts[file] == number]
    assert dataset.card()["splits"] == {"train": 20, "test": 2}
    assert dataset.card()["validation_images_left_out"] == 2
    assert "its validation part, 2 images, is left out" in dataset.card()["split_rule"]


def test_moving_a_file_to_another_part_of_celeba_moves_its_face(root):
    orig_file = (root / MAPPING).read_text().splitlines()[1 + 5].split()[2]
    text = (root / PARTITION).read_text()
    assert f"{orig_file} 0\n" in text
    (root / PARTITION).write_text(text.replace(f"{orig_file} 0\n", f"{orig_file} 2\n"))
    assert numbers(celeba_hq(root), "test") == [5, 9, 19]


def test_attributes_agree_with_the_text(root):
    _, header, *lines = (root / ATTRIBUTES).read_text().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    dataset = celeba_hq(root)
    assert header.split() == COLUMNS
    for name in SPLITS:
        examples = dataset.split(name)
        assert list(examples.attributes) == COLUMNS
        for column, values in enumerate(examples.attributes.values()):
            assert values.tolist() == [float(rows[Path(image).name][column]) for image in examples.names]


def test_attributes_stay_with_their_image_when_corrupt_ones_are_skipped(root):
    before = celeba_hq(root).split("train")
    (root / IMAGES / "4.jpg").write_bytes(b"")
    (root / IMAGES / "0.jpg").write_bytes(b"broken")  # the first: its size is asked of the next
    dataset = celeba_hq(root, on_corrupt="skip")
    kept = [i for i, name in enumerate(before.names) if Path(name).stem not in ("0", "4")]
    assert numbers(dataset, "train") == [int(Path(before.names[i]).stem) for i in kept]
    for name, values in dataset.split("train").attributes.items():
        assert torch.equal(values, before.attributes[name][kept])
    assert len(dataset.card()["left_out"]["images that cannot be decoded"]) == 2


def hair_slicer(*groups: str) -> Attribute:
    config = Attribute.Config(groups=[[name] for name in groups])
    return Attribute(config, n_slices=len(groups) + 1, streams=Streams(0))


def test_hair_colours_cut_both_splits_into_slices(tmp_path):
    dataset = celeba_hq(write_celeba_hq(tmp_path, n=60, size=16))
    slicer = hair_slicer("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
    slicer.fit(dataset.split("train"))
    for name in SPLITS:
        assert slicer.assign(dataset.split(name)).unique().tolist() == [0, 1, 2, 3, 4]


def test_an_attribute_that_does_not_exist_gets_a_suggestion(root):
    with pytest.raises(DataError) as error:
        hair_slicer("Grey_Hair").fit(celeba_hq(root).split("train"))
    assert str(error.value).startswith(
        "attribute: the data has no attribute 'Grey_Hair'; did you mean 'Gray_Hair'? it has 5_o_Clock_Shadow, "
    )


# --- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_hashes_each_text_file_and_the_images(root):
    before = celeba_hq(root).card()["files"]
    for path in (ATTRIBUTES, MAPPING, PARTITION):
        content = (root / path).read_bytes()
        assert before[f"{Path(path).name}: SHA-256"] == hashlib.sha256(content).hexdigest()
    Image.new("RGB", (32, 32)).save(root / IMAGES / "9.jpg")
    changed = celeba_hq(root).card()["files"]
    assert [key for key in before if changed[key] != before[key]] == [
        "test: SHA-256 over the names and contents of the 2 files used"
    ]


def test_the_card_states_terms_and_what_was_done_to_the_faces(root):
    card = celeba_hq(root).card()
    assert card["licence"].startswith("non-commercial research only")
    assert card["transformations"][:2] == [
        "by the source: aligned, cropped and super-resolved by Karras et al. 2018 (Progressive Growing of GANs); "
        "moeframe aligns nothing",
        "JPEG of 32x32",
    ]
    assert card["split_rule"].endswith("; sizes not compared with the official ones (verify: false)")


# --- images that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["CelebAMask-HQ/CelebA-HQ-img/00003.jpg", "celeba_hq_256/3.png"])
def test_two_images_of_one_number_are_both_named(root, other):
    (root / other).parent.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32)).save(root / other)
    first, second = sorted([other, f"{IMAGES}/3.jpg"])
    assert problem(root) == (
        f"celeba_hq: two images have the number 3: {root / first} and {root / second}; keep one of them below root"
    )


def test_an_image_of_another_size_is_named(root):
    path = root / IMAGES / "7.jpg"
    Image.new("RGB", (48, 48)).save(path)
    with pytest.raises(DataError) as error:
        celeba_hq(root).split("train").images(torch.tensor([7]))
    assert str(error.value) == f"image {path} has 48x48 pixels, not 32x32 like the first one; replace it"


def test_a_zero_byte_image_is_named(root):
    path = root / IMAGES / "7.jpg"
    path.write_bytes(b"")
    with pytest.raises(DataError) as error:
        celeba_hq(root).split("train").images(torch.tensor([7]))
    assert str(error.value) == f"image {path} is empty (0 bytes); replace or delete it"


def test_a_first_image_that_cannot_be_read_is_named(root):
    path = root / IMAGES / "0.jpg"
    path.write_bytes(b"")
    assert problem(root) == f"image {path} is empty (0 bytes); download it again"
    path.write_bytes(b"<html>")
    assert (
        problem(root) == f"image {path} has no header that Pillow can read (UnidentifiedImageError); download it again"
    )


def test_images_none_of_which_can_be_read_are_told(root):
    for path in (root / IMAGES).iterdir():
        path.write_bytes(b"")
    assert problem(root, on_corrupt="skip") == (
        f"celeba_hq: none of the 24 images of {root} can be read; download them again"
    )


def test_a_face_that_is_not_square_is_refused(root):
    path = root / IMAGES / "0.jpg"
    Image.new("RGB", (178, 218)).save(path)
    assert problem(root) == (f"image {path} has 178x218 pixels; the faces of CelebA-HQ are square: download it again")


def test_faces_are_never_enlarged(root):
    assert problem(root, size=64) == (
        f"image {root / IMAGES}/0.jpg has 32x32 pixels, fewer than dataset.size: 64; nothing is enlarged: "
        "set dataset.size to 32 or less, or get the faces of 1024x1024"
    )
