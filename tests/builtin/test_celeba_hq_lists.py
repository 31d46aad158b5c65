"""The lists of CelebA-HQ: official sizes, files that are missing, lists that do not fit."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from celeba_hq_files import ATTRIBUTES, IMAGES, MAPPING, PARTITION, celeba_hq, problem
from official_celeba_hq import COLUMNS, write_celeba_hq
from PIL import Image

from moeframe.interfaces.dataset import SPLITS


def edit_line(path: Path, number: int, line: str | None) -> None:
    """Replace line `number`, counted from 1, or take it out."""
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if line is None else [line]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path) -> Path:
    """24 faces of 32x32 pixels: 20 train, 2 validation, 2 test."""
    return write_celeba_hq(tmp_path, size=32)


# --- official sizes ---------------------------------------------------------------------------------------------------


def write_many(root: Path, sizes: tuple[int, int, int]) -> Path:
    """An archive of as many faces, all the same 8x8 pixels, and the lists to it."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    parts = np.repeat([0, 1, 2], sizes).tolist()
    row = "  ".join(["-1"] * 40)
    path = root / "celeba_hq.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(len(parts)):
            archive.writestr(f"{i:05d}.png", buffer.getvalue())
    lines = "".join(f"{i}.jpg  {row}\n" for i in range(len(parts)))
    (root / Path(ATTRIBUTES).name).write_text(f"{len(parts)}\n{' '.join(COLUMNS)}\n{lines}")
    mapping = "".join(f"{i} {i} {i + 1:06d}.jpg\n" for i in range(len(parts)))
    (root / Path(MAPPING).name).write_text(f"idx orig_idx orig_file\n{mapping}")
    (root / PARTITION).write_text("".join(f"{i + 1:06d}.jpg {part}\n" for i, part in enumerate(parts)))
    return path


@pytest.mark.slow
def test_the_official_sizes_are_accepted_and_stated(tmp_path):
    dataset = celeba_hq(write_many(tmp_path, (24_183, 2_993, 2_824)), size=8, verify=True)
    assert dataset.missing() is None
    card = dataset.card()
    assert card["splits"] == {"train": 24_183, "test": 2_824}
    assert card["split_rule"].endswith("its validation part, 2993 images, is left out")


def test_other_sizes_are_refused_unless_told(root):
    assert problem(root, verify=True) == (
        f"celeba_hq: {root} has 24 images (20 train, 2 validation, 2 test), not the official 30000 images "
        "(24183 train, 2993 validation, 2824 test); complete it, or set dataset.verify: false if it differs on purpose"
    )
    assert celeba_hq(root, verify=False).missing() is None


# --- files that are missing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_without_a_list_it_says_where_to_get_and_put_it(tmp_path, zipped):
    root = write_celeba_hq(tmp_path, size=32, zipped=zipped)
    (tmp_path / PARTITION).unlink()
    where = f"in {root} or beside it" if zipped else f"in {root}"
    assert problem(root) == (
        f"celeba_hq: there is no {PARTITION} {where}; it belongs to CelebA "
        "(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html): put it there, or set dataset.partition to where it is"
    )


@pytest.mark.parametrize("path", [ATTRIBUTES, MAPPING])
def test_without_a_list_of_celebamask_hq_it_says_where_to_get_it(root, path):
    (root / path).unlink()
    assert problem(root) == (
        f"celeba_hq: there is no {Path(path).name} in {root}; it comes with CelebAMask-HQ "
        "(https://github.com/switchablenorms/CelebAMask-HQ): put it there"
    )


def test_the_partition_may_lie_elsewhere(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("celeba") / "partition.txt"
    (root / PARTITION).rename(elsewhere)
    assert celeba_hq(root, partition=elsewhere).missing() is None
    assert problem(root, partition=root / "none.txt") == (
        f"celeba_hq: dataset.partition {root}/none.txt is not a file; it is list_eval_partition.txt of CelebA "
        "(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
    )


def test_two_files_of_one_list_are_refused(root):
    (root / Path(MAPPING).name).write_text("x")
    assert problem(root) == (
        f"celeba_hq: there are 2 files {Path(MAPPING).name}: {root}/{Path(MAPPING).name} and {root}/{MAPPING}; "
        "keep one of them"
    )


def test_a_list_in_the_zip_and_beside_it_is_refused(tmp_path):
    root = write_celeba_hq(tmp_path, size=32, zipped=True)
    (tmp_path / Path(MAPPING).name).write_text("x")
    assert problem(root) == (
        f"celeba_hq: there are 2 files {Path(MAPPING).name}: {root}:{MAPPING} and {tmp_path}/{Path(MAPPING).name}; "
        "keep one of them"
    )


def test_without_images_it_says_where_to_get_them(tmp_path):
    (tmp_path / "0_hair.png").write_text("x")
    assert problem(tmp_path) == (
        f"celeba_hq: {tmp_path} holds no images named by number, such as 0.jpg or 00000.png; get CelebAMask-HQ "
        "(https://github.com/switchablenorms/CelebAMask-HQ) and put it there, or set dataset.root"
    )
    assert problem(tmp_path / "none") == (
        f"celeba_hq: root {tmp_path}/none does not exist; get CelebAMask-HQ "
        "(https://github.com/switchablenorms/CelebAMask-HQ) and put it there, or set dataset.root"
    )


# --- lists that do not fit --------------------------------------------------------------------------------------------


def attributes_line(index: int, **changes: str) -> str:
    return f"{index}.jpg " + " ".join(changes.get(name, "-1") for name in COLUMNS)


@pytest.mark.parametrize(
    ("path", "number", "line", "place", "message"),
    [
        (ATTRIBUTES, 1, "25", 1, "says 25 lines, but 24 follow, the last on line 26; download the file again"),
        (ATTRIBUTES, 26, None, 1, "says 24 lines, but 23 follow, the last on line 25; download the file again"),
        (
            ATTRIBUTES,
            1,
            "24 faces",
            1,
            "the count of lines is '24 faces'; it must be a number alone: download the file again",
        ),
        (
            ATTRIBUTES,
            2,
            " ".join(COLUMNS[:-1]),
            2,
            "names 39 attributes, 39 of them different; there must be 40: download the file again",
        ),
        (
            ATTRIBUTES,
            2,
            " ".join([*COLUMNS[:-1], "Bald"]),
            2,
            "names 40 attributes, 39 of them different; there must be 40: download the file again",
        ),
        (
            ATTRIBUTES,
            7,
            attributes_line(4).removesuffix(" -1"),
            7,
            "must have 41 columns (a file name and 40 values), not 40; download the file again",
        ),
        (
            ATTRIBUTES,
            7,
            attributes_line(4, Brown_Hair="0"),
            7,
            "Brown_Hair is '0'; it must be 1 where present and -1 where absent: download the file again",
        ),
        (ATTRIBUTES, 7, attributes_line(3), 7, "a second line for 3.jpg, the first is line 6; download the file again"),
        (
            ATTRIBUTES,
            7,
            attributes_line(4).replace("4.jpg", "face"),
            7,
            "'face' is not a numbered image file such as 119614.jpg; download the file again",
        ),
        (
            MAPPING,
            1,
            None,
            1,
            "the header is '0 888 000889.jpg', not 'idx orig_idx orig_file'; download the file again",
        ),
        (MAPPING, 6, "4  119613", 6, "must have 3 columns (idx, orig_idx, orig_file), not 2; download the file again"),
        (
            MAPPING,
            6,
            "4  119613  1196",
            6,
            "'1196' is not a numbered image file such as 119614.jpg; download the file again",
        ),
        (MAPPING, 6, "four 119613 119614.jpg", 6, "idx is 'four'; it must be a number: download the file again"),
        (MAPPING, 6, "3 119613 119614.jpg", 6, "a second line for idx 3, the first is line 5; download the file again"),
        (
            MAPPING,
            6,
            "4 888 000889.jpg",
            6,
            "a second line for 000889.jpg, the first is line 2; download the file again",
        ),
        (
            MAPPING,
            6,
            "4 119613 119614.jpg",
            6,
            f"119614.jpg is not among the 48 files of {{root}}/{PARTITION}; download both files again, one of them is "
            "cut short or of another data set",
        ),
        (
            PARTITION,
            3,
            "000075.jpg 3",
            3,
            "the part of 000075.jpg is '3'; it must be 0 (train), 1 (validation) or 2 (test): download the file again",
        ),
        (
            PARTITION,
            48,
            "182900.jpg",
            48,
            "must have 2 columns (a file name and its part), not 1; download the file again",
        ),
        (PARTITION, 3, "000149.jpg 0", 7, "a second line for 000149.jpg, the first is line 3; download the file again"),
    ],
)
def test_a_flaw_in_a_list_is_told_with_its_line(root, path, number, line, place, message):
    edit_line(root / path, number, line)
    assert problem(root) == f"{root / path}:{place}: {message.replace('{root}', str(root))}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (ATTRIBUTES, "the file ends here, before its count and names; download it again"),
        (MAPPING, "the header is '', not 'idx orig_idx orig_file'; download the file again"),
        (PARTITION, "the file is empty; download it again"),
    ],
)
def test_an_empty_list_is_told(root, path, message):
    (root / path).write_text("")
    assert problem(root) == f"{root / path}:1: {message}"


@pytest.mark.parametrize("path", [ATTRIBUTES, MAPPING, PARTITION])
def test_a_list_that_is_no_text_is_told(root, path):
    (root / path).write_bytes(b"\xff\xfe\x00")
    assert problem(root) == (
        f"{root / path} is not a text file ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte); "
        "download it again"
    )


@pytest.mark.parametrize("path", [ATTRIBUTES, MAPPING, PARTITION])
def test_a_list_cut_short_anywhere_is_told_or_reads_the_same(root, path):
    content = (root / path).read_bytes()
    expected = {name: celeba_hq(root).split(name) for name in SPLITS}
    for length in np.linspace(0, len(content) - 1, 40).astype(int).tolist():
        (root / path).write_bytes(content[:length])
        dataset = celeba_hq(root)
        if (found := dataset.missing()) is None:
            assert all(dataset.split(name).names == expected[name].names for name in SPLITS)
        else:
            assert str(root) in found


def test_a_line_without_an_image_is_told(root):
    (root / IMAGES / "11.jpg").unlink()
    assert problem(root) == (
        f"{root / ATTRIBUTES}:14: there is no image of number 11 in {root}, which has 23 images for 24 lines; "
        "add the image, or remove the line and fix the count"
    )


def test_images_without_a_line_are_told(root):
    for index in (24, 25):
        Image.new("RGB", (32, 32)).save(root / IMAGES / f"{index}.jpg")
    assert problem(root) == (
        f"{root / ATTRIBUTES} has no line for 2 of the 26 images, the first is {root / IMAGES}/24.jpg; download the "
        "file again, or remove images that are not CelebA-HQ's"
    )


def test_an_image_that_the_mapping_lacks_is_told(root):
    edit_line(root / MAPPING, 25, None)
    assert problem(root) == (
        f"{root / MAPPING} has no line for 1 of the 24 images, the first is {root / IMAGES}/23.jpg; download the "
        "file again, or remove images that are not CelebA-HQ's"
    )
