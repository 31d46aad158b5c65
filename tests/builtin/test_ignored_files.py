"""Files that an image folder does not use are counted; TIFF files are images."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from small_folders import all_images, image_folder, write_image

from moeframe.errors import DataError


@pytest.fixture
def mixed(tmp_path):
    """Images, and five files that are none."""
    for split in ("train", "test"):
        for i in range(2):
            write_image(tmp_path / split / f"{i}.png")
    for name in ("train/a.PSD", "train/b.psd", "test/notes.txt", "train/README", "train/.hidden"):
        (tmp_path / name).write_text("x")
    write_image(tmp_path / "val" / "0.png")
    return tmp_path


def test_files_are_counted_by_their_extension(mixed):
    expected = {".psd": 2, ".txt": 1, "images outside train/ and test/": 1, "no extension": 1}
    assert image_folder(mixed).ignored_files == expected
    assert image_folder(mixed).card()["left_out"]["files ignored"] == expected


def test_files_of_an_archive_are_counted_too(mixed, tmp_path):
    before = image_folder(mixed).ignored_files
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(mixed.rglob("*")):
            if path.is_file() and path.suffix != ".zip":
                archive.write(path, path.relative_to(mixed))
    assert image_folder(tmp_path / "all.zip").ignored_files == before


def test_the_table_of_attributes_is_not_ignored_files(mixed):
    table = mixed / "facts.csv"
    names = ["test/0.png", "test/1.png", "train/0.png", "train/1.png"]
    table.write_text("name,age\n" + "".join(f"{name},1\n" for name in names))
    assert ".csv" in image_folder(mixed).ignored_files
    assert ".csv" not in image_folder(mixed, attributes=table).ignored_files


def test_a_folder_of_images_alone_ignores_nothing(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "0.tiff")
    dataset = image_folder(tmp_path)
    assert dataset.ignored_files == {}
    assert dataset.card()["left_out"]["files ignored"] == "none"


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_tiff_file_gives_the_pixels_of_the_same_png(tmp_path, compression, mode):
    shape = (8, 8) if mode == "L" else (8, 8, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for folder, suffix, options in (("tif", "tif", {"compression": compression}), ("png", "png", {})):
        for split in ("train", "test"):
            path = tmp_path / folder / split / f"0.{suffix}"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path, **options)
    as_tiff, as_png = (all_images(image_folder(tmp_path / name).split("train")) for name in ("tif", "png"))
    assert as_tiff.equal(as_png)


def test_a_tiff_file_is_turned_as_its_orientation_says(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels).save(tmp_path / split / "0.tif", tiffinfo={0x0112: 6})
    image = all_images(image_folder(tmp_path, channels=1).split("train"))[0, 0]
    assert np.array_equal(image.numpy(), np.rot90(pixels, -1))


def test_a_tiff_file_of_16_bits_is_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.full((8, 8), 999, dtype=np.uint16)).save(tmp_path / split / "0.tif")
    with pytest.raises(DataError, match=r"0\.tif has more than 8 bits per channel"):
        all_images(image_folder(tmp_path).split("train"))
