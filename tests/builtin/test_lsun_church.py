"""LSUN churches: what is read, the folder that stays as it is, threads, processes, duplicates."""

import hashlib
import io
import multiprocessing
import os
import pickle
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from lsun_files import TRAIN, VAL, all_images, church, write
from official_lsun import as_webp, crops, write_lmdb, write_lsun
from PIL import Image
from torch.utils.data import DataLoader

from moeframe.errors import DataError
from moeframe.testing import check_component
from moeframe_builtin.datasets.formats.lmdb_reader import LmdbReader
from moeframe_builtin.datasets.lsun_church import LsunChurch


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_lsun(tmp_path_factory.mktemp("lsun"))


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    return dict(crops(6, 0, "train"))


# what is read


@pytest.mark.parametrize(("split", "folder", "n"), [("train", "train", 24), ("test", "val", 8)])
def test_images_are_those_that_were_written_in_order_of_their_keys(root, split, folder, n):
    written = dict(sorted(crops(n, 0, folder)))
    examples = church(root, size=256).split(split)
    assert list(examples.names) == list(written)
    images = all_images(examples)
    for image, content in zip(images, written.values(), strict=True):
        decoded = Image.open(io.BytesIO(content))
        assert min(decoded.size) == 256
        left, top = ((side - 256) // 2 for side in decoded.size)
        square = decoded.convert("RGB").crop((left, top, left + 256, top + 256))  # untouched but for its borders
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(square))


def test_smaller_sizes_are_shrunk_with_antialiasing(root):
    (name, content) = min(crops(24, 0, "train"))
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    left, top = ((side - 256) // 2 for side in whole.size)
    expected = whole.crop((left, top, left + 256, top + 256)).resize((32, 32), Image.Resampling.LANCZOS)
    examples = church(root).split("train")
    assert examples.names[0] == name
    assert np.array_equal(examples.images(torch.tensor([0]))[0].permute(1, 2, 0).numpy(), np.array(expected))


def test_the_same_seed_writes_the_same_images():
    assert list(crops(5, 3, "train")) == list(crops(5, 3, "train"))
    assert not set(crops(5, 3, "train")) & set(crops(5, 4, "train"))


def test_it_keeps_the_contract_of_datasets(root):
    check_component(LsunChurch, LsunChurch.Config(root=root, size=16, verify=False))


def test_there_are_no_labels(root):
    for split, n in (("train", 24), ("test", 8)):
        examples = church(root).split(split)
        assert examples.labels.tolist() == [0] * n
        assert examples.label_names == ("church_outdoor",)
        assert not examples.attributes


def test_the_image_shape_follows_the_size(root):
    assert church(root, size=48).image.tensor_shape == (3, 48, 48)
    assert LsunChurch.Config(root=root).size == 256


def test_the_card_tells_source_split_transformations_and_files(root):
    card = church(root).card()
    assert card["splits"] == {"train": 24, "test": 8}
    assert card["source"].startswith("LSUN, category church_outdoor (F. Yu,")
    assert card["licence"].startswith("none found for the images; ")
    assert card["split_rule"].endswith("were not compared (verify: false)")
    assert card["labels"] == "none: all zero"
    assert card["transformations"][0].startswith("by the source: shorter side resized to 256 pixels")
    assert card["transformations"][-1].startswith("resized to 32x32 with PIL LANCZOS (antialiased)")
    assert card["files"] == {
        f"{folder}/data.mdb": hashlib.sha256((root / folder / "data.mdb").read_bytes()).hexdigest()
        for folder in (TRAIN, VAL)
    }


def test_official_folders_are_called_official(monkeypatch, root):
    monkeypatch.setattr("moeframe_builtin.datasets.lsun_church.OFFICIAL_IMAGES", {"train": 24, "test": 8})
    card = church(root, verify=True).card()
    assert card["split_rule"].startswith("the official one: train, and val as test")


def test_nothing_is_decoded_before_it_is_fetched(tmp_path, photographs):
    broken, sound = sorted(photographs)[:2]
    train = church(write(tmp_path, {**photographs, broken: b"broken"})).split("train")
    assert train.images(torch.tensor([1])).shape == (1, 3, 32, 32)
    assert train.names[1] == sound
    with pytest.raises(DataError):
        train.images(torch.tensor([0]))


def test_more_than_lmdbs_default_map_of_10_mib_can_be_read(tmp_path):
    noise = random.Random(0)
    values = {f"{i:040x}": noise.randbytes(1 << 20) for i in range(12)}
    reader = LmdbReader(write_lmdb(tmp_path / "large", values.items()), "")
    assert {name: reader.read(name) for name in reader.names()} == values


# the folder stays as it is


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


@pytest.mark.parametrize("lock_file", [True, False])
def test_nothing_is_written(tmp_path, photographs, lock_file):
    write(tmp_path, photographs)
    if not lock_file:
        for folder in (TRAIN, VAL):
            (tmp_path / folder / "lock.mdb").unlink()
    before = state_of(tmp_path)
    dataset = church(tmp_path, on_corrupt="skip", near_duplicates="drop")
    dataset.card()
    all_images(dataset.split("train"))
    del dataset  # closed
    assert state_of(tmp_path) == before


def read_as_nobody(root: Path, answers: "multiprocessing.Queue[object]") -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)  # root may write anywhere
    try:
        for folder in (TRAIN, VAL):
            for path, mode in ((root / folder / "new", "wb"), (root / folder / "data.mdb", "r+b")):
                try:
                    with path.open(mode):
                        answers.put(f"{path} can be written to")
                except PermissionError:
                    pass
        answers.put(all_images(church(root).split("train")).numpy())
    except Exception as error:
        answers.put(repr(error))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_enough(photographs):
    with tempfile.TemporaryDirectory() as place:  # not pytest's, whose parents are closed to others
        os.chmod(place, 0o755)
        root = write(Path(place) / "lsun", photographs)
        here = all_images(church(root).split("train")).numpy()
        for path in sorted(root.rglob("*"), reverse=True):
            path.chmod(0o444 if path.is_file() else 0o555)
        root.chmod(0o555)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=read_as_nobody, args=(root, answers))
        process.start()
        there = answers.get(timeout=60)
        process.join()
        for path in (root, root / TRAIN, root / VAL):
            path.chmod(0o755)
    assert isinstance(there, np.ndarray), there
    assert np.array_equal(there, here)


# threads and processes


def test_several_readers_of_one_file_live_side_by_side(root):
    first, second = church(root).split("train"), church(root).split("train")
    assert torch.equal(first.images(torch.tensor([3])), second.images(torch.tensor([3])))
    del first
    assert second.images(torch.tensor([3])).shape == (1, 3, 32, 32)


def test_threads_read_what_one_reads(root):
    reader = LmdbReader(root / TRAIN, "")
    names = reader.names() * 20
    alone = [reader.read(name) for name in names]
    fresh = LmdbReader(root / TRAIN, "")  # opened by the threads themselves
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fresh.read, names)) == alone


def test_a_pickled_split_reads_the_same(root):
    train = church(root).split("train")
    images = all_images(train)  # opened before it is pickled
    assert torch.equal(all_images(pickle.loads(pickle.dumps(train))), images)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("opened", [True, False])
def test_worker_processes_read_what_the_main_process_reads(root, start_method, opened):
    dataset = church(root)
    other = church(root).split("train")
    train = dataset.split("train")
    here = all_images(church(root).split("train"))
    if not opened:
        train = pickle.loads(pickle.dumps(train))
        del dataset, other
    plan = list(torch.arange(len(train)).split(5))
    for _ in range(2):  # the second time from a process whose workers have closed what they inherited
        loader = DataLoader(
            plan, batch_size=None, collate_fn=train.images, num_workers=2, multiprocessing_context=start_method
        )
        assert torch.equal(torch.cat(list(loader)), here)
    assert torch.equal(all_images(train), here)


# duplicates


def brighter(content: bytes) -> bytes:
    """The same photograph, a little smaller, brighter and compressed anew."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    return as_webp(image.point(lambda level: min(255, round(level * 1.02))), quality=60)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory) -> Path:
    """Two of the training photographs repeat earlier ones, two of them stand in val; val repeats one of its own."""
    train, val = dict(crops(8, 0, "train")), dict(crops(4, 0, "val"))
    first, second = list(train)[:2]
    of_val, of_val_too = list(val)[:2]
    train |= {"e" * 39 + "1": brighter(train[first]), "e" * 39 + "2": train[second]}
    train |= {"e" * 39 + "3": brighter(val[of_val]), "e" * 39 + "4": val[of_val_too]}
    val |= {"e" * 39 + "5": brighter(val[of_val])}
    return write(tmp_path_factory.mktemp("repeating"), train, val)


def test_near_duplicates_are_kept_unless_told(repeating):
    card = church(repeating).card()
    assert card["splits"] == {"train": 12, "test": 5}
    assert card["left_out"]["near-duplicates"] == "kept (near_duplicates: keep)"


def test_dropping_near_duplicates_leaves_the_test_split_alone(repeating):
    kept, dropped = church(repeating), church(repeating, near_duplicates="drop")
    assert dropped.card()["splits"] == {"train": 8, "test": 5}
    assert dropped.card()["left_out"]["near-duplicates"] == {
        "training images that nearly equal a test image": 2,
        "training images that nearly equal an earlier one only": 2,
    }
    assert dropped.split("test").names == kept.split("test").names
    gone = set(kept.split("train").names) - set(dropped.split("train").names)
    assert len(gone) == 4
    assert {"e" * 39 + "3", "e" * 39 + "4"} <= gone


def test_photographs_that_differ_are_no_near_duplicates(root):
    assert church(root, near_duplicates="drop").card()["splits"] == {"train": 24, "test": 8}
