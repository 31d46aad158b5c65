"""LSUN churches: files that are damaged or missing."""

import os
from pathlib import Path

import pytest
from lsun_files import TRAIN, VAL, all_images, church, write
from official_lsun import crops, write_lsun

from moeframe.errors import DataError
from moeframe_builtin.datasets.formats.lmdb_reader import LmdbReader

FETCH = "with download.py -c church_outdoor of https://github.com/fyu/lsun and unzip in"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_lsun(tmp_path_factory.mktemp("lsun"))


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    return dict(crops(6, 0, "train"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty (0 bytes); replace or delete it"),
        (b"broken", "is not in an image format that Pillow reads; replace or delete it"),
        (None, "cannot be decoded ("),
    ],
)
def test_an_image_that_cannot_be_decoded_is_named_by_its_key(tmp_path, photographs, content, complaint):
    key = sorted(photographs)[2]
    damaged = photographs[key][:500] if content is None else content
    dataset = church(write(tmp_path, {**photographs, key: damaged}))
    with pytest.raises(DataError) as error:
        all_images(dataset.split("train"))
    assert str(error.value).startswith(f"image {tmp_path}/{TRAIN}/data.mdb:{key} {complaint}")


def test_skipping_lists_what_was_left_out(tmp_path, photographs):
    key = sorted(photographs)[2]
    dataset = church(write(tmp_path, {**photographs, key: b"broken"}), on_corrupt="skip")
    assert list(dataset.split("train").names) == sorted(set(photographs) - {key})
    place = f"{tmp_path}/{TRAIN}/data.mdb:{key}"
    assert dataset.card()["left_out"]["images that cannot be decoded"] == [
        f"image {place} is not in an image format that Pillow reads; replace or delete it"
    ]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused_before_it_is_read(tmp_path, photographs, share):
    path = write(tmp_path, photographs) / TRAIN / "data.mdb"
    whole = path.stat().st_size
    os.truncate(path, size := max(8192, int(whole * share)))
    assert church(tmp_path).missing() == (
        f"{path} is cut short: {size:,} bytes of {whole:,}; download it again: fetch {TRAIN}.zip {FETCH} {tmp_path}"
    )


@pytest.mark.parametrize("content", [b"", b"x", b"<html>" * 5000, bytes(100_000)])
def test_a_file_that_is_no_lmdb_file_is_refused(tmp_path, photographs, content):
    path = write(tmp_path, photographs) / VAL / "data.mdb"
    path.write_bytes(content)
    message = church(tmp_path).missing()
    assert message.startswith(f"{path} ({len(content):,} bytes) is a corrupt LMDB file (LMDB ")
    assert message.endswith(f"); download it again: fetch {VAL}.zip {FETCH} {tmp_path}")


def test_meta_pages_alone_are_refused(tmp_path, photographs):
    path = write(tmp_path, photographs) / VAL / "data.mdb"
    os.truncate(path, 4096)
    assert church(tmp_path).missing().startswith(f"{path} (4,096 bytes) is a corrupt LMDB file (LMDB ")


def test_tree_pages_that_were_zeroed_are_refused(tmp_path, photographs):
    path = write(tmp_path, photographs) / TRAIN / "data.mdb"
    content = path.read_bytes()
    path.write_bytes(content[:8192] + bytes(len(content) - 8192))
    message = church(tmp_path).missing()
    assert message.startswith(f"{path} ({len(content):,} bytes) is a corrupt LMDB file (LMDB ")
    assert "MDB_CORRUPTED" in message


def test_missing_folders_are_said_with_where_to_get_them(tmp_path):
    message = (
        f"lsun_church: {tmp_path}/lsun holds neither {TRAIN} nor {VAL}; fetch {TRAIN}.zip and {VAL}.zip "
        f"{FETCH} {tmp_path}/lsun, or set dataset.root to where they are"
    )
    assert church(tmp_path / "lsun").missing() == message
    write_lsun(tmp_path / "lsun", n_train=2, n_val=2)
    assert church(tmp_path / "lsun").missing() is None


@pytest.mark.parametrize(("split", "folder"), [("train", TRAIN), ("test", VAL)])
def test_a_missing_data_file_is_said_with_where_to_get_it(tmp_path, photographs, split, folder):
    path = write(tmp_path, photographs) / folder / "data.mdb"
    path.unlink()
    message = f"{path} does not exist; fetch {folder}.zip {FETCH} {tmp_path}"
    assert church(tmp_path).missing() == message
    with pytest.raises(DataError) as error:
        church(tmp_path).split(split)
    assert str(error.value) == message


def test_a_folder_in_place_of_the_data_file_is_refused(tmp_path, photographs):
    path = write(tmp_path, photographs) / VAL / "data.mdb"
    path.unlink()
    path.mkdir()
    assert church(tmp_path).missing() == f"{path} cannot be read (Is a directory); check it and its permissions"


def test_other_numbers_of_images_are_refused_unless_told(root):
    assert church(root, verify=True).missing() == (
        f"{root}/{TRAIN}/data.mdb holds 24 images, not the official 126,227; fetch {TRAIN}.zip {FETCH} {root}, "
        "or set dataset.verify: false if it differs on purpose"
    )
    assert church(root, verify=False).missing() is None


def test_an_empty_folder_is_refused(tmp_path):
    write(tmp_path, {})
    assert church(tmp_path).missing() == (
        "lsun_church: no train image is left (0 cannot be decoded, 0 dropped); download the data again"
    )


def test_a_key_that_is_not_ascii_is_refused(tmp_path, photographs):
    write(tmp_path, {**photographs, b"\xff\x00": b"x"})
    assert church(tmp_path).missing() == (
        f"{tmp_path}/{TRAIN}/data.mdb holds the key b'\\xff\\x00', which is not ASCII; "
        f"download it again: fetch {TRAIN}.zip {FETCH} {tmp_path}"
    )


@pytest.mark.parametrize("key", ["0" * 40, "é", "", "0" * 600])
def test_a_key_that_is_not_there_is_named(root, key):
    reader = LmdbReader(root / TRAIN, "fetch it")
    with pytest.raises(DataError) as error:
        reader.read(key)
    assert str(error.value).startswith(f"image {root}/{TRAIN}/data.mdb:{key} ")
    assert str(error.value).endswith("download the file again: fetch it")
