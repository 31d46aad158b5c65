"""CIFAR-10: batches in the official format, pickles that run nothing, and what a user reads when data is missing."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from official_cifar10 import CLASSES, META, batch

from moeframe.errors import DataError
from moeframe_builtin.datasets.cifar10 import OFFICIAL_MD5, Cifar10

BATCHES = [name for name in OFFICIAL_MD5 if name != "batches.meta"]
AGAIN = "unpack cifar-10-python.tar.gz again"


def some_pixels(n: int, first: int = 0) -> np.ndarray:
    """Rows of 3072 values, a different one for each image."""
    return ((np.arange(3072) + np.arange(first, first + n)[:, None]) % 251).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The official folder with three images a batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate(BATCHES):
        (folder / name).write_bytes(batch(some_pixels(3, first=3 * i), [i, 8, 9]))
    (folder / "batches.meta").write_bytes(META)
    return folder


def dataset(root: Path, **settings) -> Cifar10:
    return Cifar10(Cifar10.Config(root=root, **{"verify": False, **settings}))


def problem(root: Path, **settings) -> str:
    """What a user reads; `missing` and `split` say the same."""
    with pytest.raises(DataError) as error:
        dataset(root, **settings).split("test")
    assert dataset(root, **settings).missing() == str(error.value)
    return str(error.value)


@pytest.mark.filterwarnings("ignore:numpy.core")
def test_the_batches_of_these_tests_are_what_pickle_itself_reads():
    for fortran in (False, True):
        entries = pickle.loads(batch(some_pixels(3), [1, 2, 3], fortran=fortran), encoding="bytes")
        assert set(entries) == {b"batch_label", b"labels", b"data", b"filenames"}
        assert np.array_equal(entries[b"data"], some_pixels(3))
        assert entries[b"labels"] == [1, 2, 3]


def test_the_five_batches_are_train_in_order_and_the_test_batch_is_test(folder):
    data = dataset(folder)
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (15, 3)
    assert train.labels.tolist() == [0, 8, 9, 1, 8, 9, 2, 8, 9, 3, 8, 9, 4, 8, 9]
    assert test.labels.tolist() == [5, 8, 9]
    assert train.label_names == test.label_names == CLASSES
    assert test.images(torch.tensor([0]))[0, 0, 0, 0] == 15
    assert data.missing() is None


def test_a_row_is_the_red_then_the_green_then_the_blue_plane_line_by_line(folder):
    row = np.zeros((1, 3072), np.uint8)
    row[0, 1024 + 32 * 5 + 7] = 200
    (folder / "test_batch").write_bytes(batch(row, [0]))
    image = dataset(folder).split("test").images(torch.tensor([0]))[0]
    assert image.nonzero().tolist() == [[1, 5, 7]]


def test_the_root_may_be_the_folder_or_hold_it(folder):
    assert len(dataset(folder.parent).split("train")) == len(dataset(folder).split("train")) == 15


def test_images_stay_one_byte_per_value_in_memory(folder):
    assert dataset(folder).split("train")._images.dtype == torch.uint8


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_written_by_python_3_and_in_either_memory_order_are_read(folder, protocol, order):
    pixels = np.array(some_pixels(3, first=40), order=order)
    content = pickle.dumps({b"labels": [1, 2, 3], b"data": pixels}, protocol=protocol)
    (folder / "test_batch").write_bytes(content)
    test = dataset(folder).split("test")
    assert test.labels.tolist() == [1, 2, 3]
    assert np.array_equal(test.images(torch.arange(3)).flatten(1).numpy(), some_pixels(3, first=40))


def test_an_array_in_fortran_order_is_read(folder):
    (folder / "test_batch").write_bytes(batch(some_pixels(3), [1, 2, 3], fortran=True))
    images = dataset(folder).split("test").images(torch.arange(3))
    assert np.array_equal(images.flatten(1).numpy(), some_pixels(3))


def test_the_card_states_licence_and_hashes(folder):
    card = dataset(folder).card()
    assert card["licence"].startswith("none stated by its authors")
    assert card["splits"] == {"train": 15, "test": 3}
    assert card["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in [*BATCHES, "batches.meta"]
    }
    assert "not compared with the official files" in card["split_rule"]


# what could run code


class Touch:
    """Pickled, it calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(folder, tmp_path):
    trace = tmp_path / "trace"
    path = folder / "data_batch_2"
    path.write_bytes(pickle.dumps({b"labels": [1], b"data": Touch(Path.touch, trace)}))
    message = problem(folder)
    assert message.startswith(f"{path} is refused: its pickle uses ")
    assert message.endswith(
        ", which no array needs and which could run code; do not trust its source, "
        "and unpack the archive from the official one"
    )
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "numpy.ndarray.dumps"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "the encoding 'rot13'"),
        (b"cnumpy\nndarray\n}(X\x04\x00\x00\x00nameK\x01ub.", "a change of numpy.ndarray"),
    ],
)
def test_every_name_but_those_of_an_array_is_refused(folder, content, named):
    (folder / "test_batch").write_bytes(content)
    assert f"test_batch is refused: its pickle uses {named}, which" in problem(folder)


def test_a_file_that_is_not_the_official_one_is_refused_before_it_is_unpickled(folder):
    path = folder / "batches.meta"
    path.write_bytes(b"cos\nsystem\n.")
    assert problem(folder, verify=True) == (
        f"{path} (12 bytes) is not the official file: MD5 {hashlib.md5(path.read_bytes()).hexdigest()}, not "
        f"5ff9c542aee3614f3951f8cda6e48888; {AGAIN}, or set dataset.verify: false if it differs on purpose"
    )


# missing and broken


def test_where_to_get_it_and_where_to_put_it_is_said(tmp_path):
    assert problem(tmp_path / "data") == (
        f"cifar10: {tmp_path}/data holds no cifar-10-batches-py; download cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html and unpack it there, or set dataset.root to where it is"
    )


def test_lacking_batches_are_named(folder):
    (folder / "data_batch_3").unlink()
    (folder / "test_batch").unlink()
    assert problem(folder.parent) == (
        f"cifar10: {folder} lacks data_batch_3, test_batch; download cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html and unpack it again, so that they are there"
    )
    assert problem(folder) == problem(folder.parent)


@pytest.mark.parametrize("kept", [0, 1, 100, 9000, -1])
def test_a_truncated_batch_is_named(folder, kept):
    path = folder / "data_batch_5"
    path.write_bytes(path.read_bytes()[:kept])
    message = problem(folder)
    assert message.startswith(f"{path} is truncated or not a pickle (")
    assert message.endswith("; unpack the archive again")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (batch(some_pixels(3), [1, 2]), f"holds 2 labels for 3 images; {AGAIN}"),
        (batch(some_pixels(0), []), f"holds 0 labels for 0 images; {AGAIN}"),
        (batch(some_pixels(2), [1, 10]), f"holds the label 10; labels are 0..9: {AGAIN}"),
        (
            batch(some_pixels(2)[:, :1000], [1, 2]),
            f"holds data of shape (2, 1000), not (images, 3072); {AGAIN}",
        ),
        (
            pickle.dumps({b"labels": [-1], b"data": some_pixels(1)}),
            f"holds the label -1; labels are 0..9: {AGAIN}",
        ),
        (
            pickle.dumps({b"labels": [1], b"data": some_pixels(1).astype(np.float32)}),
            "is not a file of CIFAR-10's python version: 'data' is not an array of unsigned bytes; "
            "unpack the archive again",
        ),
        (
            pickle.dumps({b"labels": ["1"], b"data": some_pixels(1)}),
            "is not a file of CIFAR-10's python version: 'labels' is not a list of integers; unpack the archive again",
        ),
        (
            pickle.dumps({b"fine_labels": [1], b"data": some_pixels(1)}),
            "is not a file of CIFAR-10's python version: it has no 'labels'; unpack the archive again",
        ),
        (
            pickle.dumps([1, 2]),
            "is not a file of CIFAR-10's python version: it has no 'data'; unpack the archive again",
        ),
        (
            batch(some_pixels(2), [1, 2]).replace(b"J\x02\x00\x00\x00", b"J\x03\x00\x00\x00"),
            "is not a file of CIFAR-10's python version: 'data' holds 6144 bytes, not the 9216 of its shape (3, 3072); "
            "unpack the archive again",
        ),
    ],
)
def test_a_broken_batch_is_named_with_what_is_wrong_with_it(folder, content, complaint):
    path = folder / "test_batch"
    path.write_bytes(content)
    assert problem(folder) == f"{path} {complaint}"


def test_class_names_are_ten_texts(folder):
    path = folder / "batches.meta"
    path.write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}))
    assert problem(folder) == f"{path} names 2 classes, not 10; {AGAIN}"
    path.write_bytes(pickle.dumps({"label_names": [1, 2]}))
    assert "'label_names' is not a list of strings" in problem(folder)
