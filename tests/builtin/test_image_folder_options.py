"""Folders of images: zip archives, attribute tables, and images left out."""

import multiprocessing
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_folders import all_images, image_folder, write_image

from moeframe.errors import DataError


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, n in (("train", 3), ("test", 2)):
        for label, red in (("cats", 50), ("dogs", 200)):
            for i in range(n):
                write_image(tmp_path / split / label / "nested" / f"{i}.png", color=(red, i, 0))
    return tmp_path


# a zip archive instead of a folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/train/cats/._0.png", b"x")
    return path


def test_a_zip_holds_the_same_examples_as_its_folder(folder, tmp_path_factory):
    path = zipped(folder, tmp_path_factory.mktemp("zip") / "images.zip")
    for split in ("train", "test"):
        unpacked, packed = (image_folder(root).split(split) for root in (folder, path))
        assert packed.names == unpacked.names
        assert torch.equal(packed.labels, unpacked.labels)
        assert torch.equal(all_images(packed), all_images(unpacked))
    assert image_folder(path).card()["files"] == image_folder(folder).card()["files"]


def test_a_damaged_file_in_a_zip_is_named_with_its_archive(folder, tmp_path_factory):
    path = zipped(folder, tmp_path_factory.mktemp("zip") / "images.zip")
    content = bytearray(path.read_bytes())
    at = content.index((folder / "test" / "cats" / "nested" / "0.png").read_bytes())
    content[at + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        all_images(image_folder(path).split("test"))
    assert str(error.value).startswith(f"image {path}:test/cats/nested/0.png cannot be read (Bad CRC-32")


def test_a_truncated_zip_is_refused(folder, tmp_path_factory):
    path = zipped(folder, tmp_path_factory.mktemp("zip") / "images.zip")
    path.write_bytes(path.read_bytes()[:-30])
    assert image_folder(path).missing() == (
        f"{path} is a corrupt zip archive (File is not a zip file); download it again"
    )


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_read_a_zip_as_the_main_process_does(folder, tmp_path_factory, start_method):
    path = zipped(folder, tmp_path_factory.mktemp("zip") / "images.zip")
    train = image_folder(path).split("train")
    here = all_images(train)  # the archive is open before the workers start
    with multiprocessing.get_context(start_method).Pool(2) as pool:
        there = pool.map(train.images, [torch.tensor([i]) for i in range(len(train))])
    assert torch.equal(torch.cat(there), here)


# attributes


def table(folder: Path, text: str) -> Path:
    path = folder / "attributes.csv"
    path.write_text(text)
    return path


def rows(folder: Path) -> list[str]:
    names = [*image_folder(folder).split("train").names, *image_folder(folder).split("test").names]
    return [f"{name},{i},{-1 if i % 2 else 1}" for i, name in enumerate(names)]


def test_attributes_go_with_their_files_whatever_the_order_of_the_lines(folder):
    lines = rows(folder)
    path = table(folder, "\n".join(["file,number,smiling", *reversed(lines)]))
    data = image_folder(folder, attributes=path)
    assert data.split("train").attributes["number"].tolist() == [0, 1, 2, 3, 4, 5]
    assert data.split("test").attributes["smiling"].tolist() == [1, -1, 1, -1]
    assert data.card()["attributes"] == f"{path}: number, smiling"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: the header is ''; it must name a column of file names and then each attribute once"),
        ("file,a,a\n", ":1: the header is 'file,a,a'; it must name"),
        ("file,a\n{first},1,2\n", ":2: has 3 fields, the header has 2; complete the line"),
        ("file,a\n{first},yes\n", ":2: a is 'yes'; it must be a number"),
        ("file,a\n\n{first},1\n{first},1\n", ":4: a second line for {first}; keep one of them"),
        ("file,a\nelsewhere.png,1\n", ":2: there is no image 'elsewhere.png'; remove the line or add the image"),
        (
            "file,a\n{first},1\n",
            " has no line for 9 of the 10 images, the first is 'train/cats/nested/1.png'; ",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(folder, text, complaint):
    first = "train/cats/nested/0.png"
    path = table(folder, text.format(first=first))
    assert str(image_folder(folder, attributes=path).missing()).startswith(f"{path}{complaint.format(first=first)}")


def test_a_missing_table_is_named(folder):
    path = folder / "none.csv"
    expected = f"{path} cannot be read (No such file or directory); dataset.attributes names a CSV file in UTF-8"
    assert str(image_folder(folder, attributes=path).missing()).startswith(expected)


# images left out


def test_corrupt_images_are_skipped_and_listed_when_asked_to(folder):
    empty, page = folder / "train" / "cats" / "empty.png", folder / "test" / "page.png"
    empty.touch()
    page.write_text("<html>")
    data = image_folder(folder, on_corrupt="skip")
    assert all_images(data.split("train")).shape[0] == 6
    assert data.card()["splits"] == {"train": 6, "test": 4}
    assert data.card()["left_out"]["images that cannot be decoded"] == [
        f"image {empty} is empty (0 bytes); replace or delete it",
        f"image {page} is not in an image format that Pillow reads; replace or delete it",
    ]
    assert "an error" in image_folder(folder).card()["left_out"]["images that cannot be decoded"]


def test_skipping_every_image_is_an_error(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").touch()
    with pytest.raises(DataError) as error:
        image_folder(tmp_path, on_corrupt="skip").split("train")
    expected = "image_folder: no train image is left (2 cannot be decoded, 0 dropped); download the data again"
    assert str(error.value) == expected


def test_near_duplicates_are_dropped_from_train_alone(tmp_path):
    noise = [Image.effect_noise((16, 16), 90 + i) for i in range(6)]
    for split, shown in (("train", (0, 1, 1, 2, 3)), ("test", (3, 4, 4, 5))):
        (tmp_path / split).mkdir()
        for i, number in enumerate(shown):
            noise[number].save(tmp_path / split / f"{i}-{number}.png")
    kept, dropped = (image_folder(tmp_path, near_duplicates=policy) for policy in ("keep", "drop"))
    assert kept.card()["splits"] == {"train": 5, "test": 4}
    assert list(dropped.split("train").names) == ["train/0-0.png", "train/1-1.png", "train/3-2.png"]
    assert dropped.split("test").names == kept.split("test").names
    assert dropped.card()["left_out"]["near-duplicates"] == {
        "training images that nearly equal a test image": 1,
        "training images that nearly equal an earlier one only": 1,
    }


def test_what_is_left_keeps_its_labels_and_attributes(folder):
    (folder / "train" / "cats" / "nested" / "0.png").write_bytes(b"")
    path = table(folder, "\n".join(["file,number,smiling", *rows(folder)]))
    train = image_folder(folder, attributes=path, on_corrupt="skip").split("train")
    assert train.attributes["number"].tolist() == [1, 2, 3, 4, 5]
    assert train.labels.tolist() == [0, 0, 1, 1, 1]


def test_threads_decode_the_same_images_in_the_same_order(folder):
    train = image_folder(folder).split("train")
    alone = all_images(train)
    torch.set_num_threads(3)
    try:
        assert torch.equal(all_images(train), alone)
    finally:
        torch.set_num_threads(1)


READING = """
import sys
from pathlib import Path
from moeframe.interfaces.dataset import in_batches
from moeframe_builtin.datasets.image_folder import ImageFolder
def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024
train = ImageFolder(ImageFolder.Config(root=Path(sys.argv[1]), size=128)).split("train")
peaks = [0.0, 0.0]
for indices, _ in in_batches(train, 32):
    half = int(int(indices[0]) >= len(train) // 2)
    peaks[half] = max(peaks[half], own())
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
def test_reading_a_folder_keeps_no_image(tmp_path):
    for n in range(2000):
        write_image(tmp_path / f"train/{n:04d}.png", color=(n % 256, 0, 0))
    write_image(tmp_path / "test/0.png")
    command = [sys.executable, "-c", READING, str(tmp_path)]
    # Otherwise glibc keeps a batch's 12 MiB at times after they are freed.
    giving_back = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=giving_back)
    assert float(printed.stdout) < 10  # MiB; the second half of the images holds 47
