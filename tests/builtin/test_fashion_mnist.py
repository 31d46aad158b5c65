"""Fashion-MNIST: idx files from every place they come in, and what a user reads when they are missing or broken."""

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from moeframe.errors import DataError
from moeframe_builtin.datasets import fashion_mnist
from moeframe_builtin.datasets.fashion_mnist import CLASSES, DEBIAN_FOLDER, FashionMnist
from moeframe_builtin.datasets.formats.idx_file import read_idx

HOW_TO_GET = fashion_mnist.HOW_TO_GET


def idx(values: torch.Tensor, *, magic: bytes | None = None, sizes=None) -> bytes:
    """A file in the format that http://yann.lecun.com/exdb/mnist defines."""
    sizes = sizes or values.shape
    return (magic or bytes((0, 0, 8, len(sizes)))) + struct.pack(f">{len(sizes)}I", *sizes) + bytes(values.flatten())


def some_images(n: int, first: int = 0) -> torch.Tensor:
    images = torch.arange(28 * 28).view(1, 28, 28) % 250 + torch.arange(first, first + n).view(n, 1, 1)
    return images.to(torch.uint8)


def write_files(folder: Path, *, zipped: bool = False, n_train: int = 4, n_test: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "train-images-idx3-ubyte": idx(some_images(n_train)),
        "train-labels-idx1-ubyte": idx(torch.arange(n_train) % 10),
        "t10k-images-idx3-ubyte": idx(some_images(n_test, first=3)),
        "t10k-labels-idx1-ubyte": idx(9 - torch.arange(n_test) % 10),
    }
    for name, content in contents.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return folder


def dataset(root: Path | None, **settings) -> FashionMnist:
    return FashionMnist(FashionMnist.Config(root=root, **{"verify": False, **settings}))


def problem(root: Path | None, **settings) -> str:
    """What a user reads; `missing` and `split` say the same."""
    with pytest.raises(DataError) as error:
        dataset(root, **settings).split("train")
    assert dataset(root, **settings).missing() == str(error.value)
    return str(error.value)


@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_labels_come_as_stored_from_either_layout(tmp_path, below, zipped):
    write_files(tmp_path / below, zipped=zipped)
    data = dataset(tmp_path)
    train, test = data.split("train"), data.split("test")
    assert torch.equal(train.images(torch.arange(4)), some_images(4).long().unsqueeze(1))
    assert torch.equal(test.images(torch.tensor([1])), some_images(1, first=4).long().unsqueeze(1))
    assert train.labels.tolist() == [0, 1, 2, 3]
    assert test.labels.tolist() == [9, 8]
    assert train.label_names == test.label_names == CLASSES
    assert data.missing() is None


def test_images_stay_one_byte_per_value_in_memory(tmp_path):
    assert dataset(write_files(tmp_path)).split("train")._images.dtype == torch.uint8


def test_a_file_that_was_unzipped_but_kept_its_name_is_read(tmp_path):
    for file in write_files(tmp_path).iterdir():
        file.rename(f"{file}.gz")
    assert len(dataset(tmp_path).split("train")) == 4


def test_without_a_root_the_known_places_are_looked_into_in_order(tmp_path, monkeypatch):
    places = (tmp_path / "first", tmp_path / "second")
    monkeypatch.setattr(fashion_mnist, "KNOWN_PLACES", places)
    assert problem(None) == (
        f"fashion_mnist: no idx files in {places[0]}, {places[1]} (nor in FashionMNIST/raw below); {HOW_TO_GET}"
    )
    write_files(places[1], n_train=5)
    assert len(dataset(None).split("train")) == 5
    write_files(places[0] / "FashionMNIST" / "raw", n_train=6)
    assert len(dataset(None).split("train")) == 6


def test_where_to_get_it_is_said(tmp_path):
    message = problem(tmp_path)
    assert message.startswith(f"fashion_mnist: no idx files in {tmp_path} ")
    assert "apt-get install dataset-fashion-mnist" in message
    assert "https://github.com/zalandoresearch/fashion-mnist" in message
    assert "set dataset.root" in message


def test_the_card_states_the_hash_of_each_file_and_of_what_it_holds(tmp_path):
    card = dataset(write_files(tmp_path, zipped=True)).card()
    assert card["licence"] == "MIT (Zalando SE, 2017)"
    assert card["splits"] == {"train": 4, "test": 2}
    stored = (tmp_path / "train-labels-idx1-ubyte.gz").read_bytes()
    assert card["files"]["train-labels-idx1-ubyte.gz"] == {
        "sha256": hashlib.sha256(stored).hexdigest(),
        "sha256_unzipped": hashlib.sha256(gzip.decompress(stored)).hexdigest(),
    }
    assert len(card["files"]) == 4
    assert "not compared with the official ones" in card["split_rule"]


def test_files_that_are_not_the_official_ones_are_refused_unless_told_otherwise(tmp_path):
    path = write_files(tmp_path) / "train-images-idx3-ubyte"
    assert problem(tmp_path, verify=True) == (
        f"{path} (4 examples) is not the official file: unzipped SHA-256 "
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}, not "
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888; "
        "download it again, or set dataset.verify: false if it differs on purpose"
    )


def test_a_lacking_file_is_named(tmp_path):
    (write_files(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    assert problem(tmp_path) == f"fashion_mnist: {tmp_path} lacks t10k-labels-idx1-ubyte (.gz or not); {HOW_TO_GET}"


def test_a_truncated_file_is_named(tmp_path):
    path = write_files(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-10])
    assert problem(tmp_path) == (
        f"{path} is truncated: 3126 values after the header, 4 x 28 x 28 = 3136 announced; download it again"
    )


def test_a_truncated_gz_file_is_named(tmp_path):
    path = write_files(tmp_path, zipped=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    message = problem(tmp_path)
    assert message.startswith(f"{path} cannot be unzipped (")
    assert message.endswith("; download it again")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("train-labels-idx1-ubyte", b"", "is truncated: 0 bytes, its header alone takes 8; download it again"),
        (
            "train-labels-idx1-ubyte",
            b"<!DOCTYPE html>",
            "is not an idx file of unsigned bytes in 1 dimensions: it begins with 3c21444f, not 00000801; "
            "download it again",
        ),
        (
            "train-images-idx3-ubyte",
            idx(torch.arange(4)) + bytes(100),
            "is not an idx file of unsigned bytes in 3 dimensions: it begins with 00000801, not 00000803; "
            "download it again",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(torch.arange(4)) + b"!",
            "is too long: 5 values after the header, 4 = 4 announced; download it again",
        ),
        (
            "train-images-idx3-ubyte",
            idx(torch.zeros(4, 32, 32, dtype=torch.uint8)),
            "holds images of 32x32 pixels, not 28x28; download it again",
        ),
        (
            "train-images-idx3-ubyte",
            idx(some_images(0), sizes=(0, 28, 28)),
            "holds no images; download it again",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(torch.arange(3)),
            "holds 3 labels for the 4 images of train-images-idx3-ubyte; download both files again",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(torch.tensor([0, 1, 10, 3])),
            "holds the label 10; labels are 0..9: download it again",
        ),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong_with_it(tmp_path, name, content, complaint):
    path = write_files(tmp_path) / name
    path.write_bytes(content)
    if complaint.startswith("holds no images"):
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(torch.arange(0), sizes=(0,)))
    assert problem(tmp_path) == f"{path} {complaint}"


def test_sizes_are_read_big_endian(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes((0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6)))
    assert read_idx(path, 2).values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_debians_package_holds_the_official_files():
    data = dataset(DEBIAN_FOLDER, verify=True)
    assert data.missing() is None
    card = data.card()
    assert card["splits"] == {"train": 60000, "test": 10000}
    assert data.split("train").labels.bincount().tolist() == [6000] * 10
    assert data.split("test").labels.bincount().tolist() == [1000] * 10
