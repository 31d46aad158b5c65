"""Slices that a label file lists: groups by image name, and every way in which file and data can disagree."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from moeframe.cli import main
from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.randomness import Streams
from moeframe.testing import check_slicer
from moeframe_builtin.slicers.semantic import Semantic

NAMES = ("sea/1.png", "sea/2.png", "hill.png", "a, b.png")
LABELS = 'image,group\nsea/2.png,water\nsea/1.png,water\nhill.png,land\n"a, b.png",air\nnot here.png,land\n'


@pytest.fixture
def labels(tmp_path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    return path


def named(names) -> InMemoryExamples:
    n = len(names)
    return InMemoryExamples(torch.zeros(n, 1, 2, 2, dtype=torch.long), torch.zeros(n, dtype=torch.long), names=names)


def by_labels(path: Path, k: int = 3) -> Semantic:
    return Semantic(Semantic.Config(labels=path), n_slices=k, streams=Streams(0))


def refusal(path: Path, names=NAMES, k: int = 3) -> str:
    with pytest.raises(DataError) as error:
        by_labels(path, k).fit(named(names))
    return str(error.value)


def test_an_image_goes_to_its_group_and_groups_are_numbered_by_name(labels):
    slicer = by_labels(labels)
    slicer.fit(named(NAMES[:3]))
    assert slicer.slice_names == ["air", "land", "water"]
    assert slicer.assign(named(NAMES)).tolist() == [2, 2, 1, 0]
    assert slicer.assign(named(NAMES[::-1])).tolist() == [0, 1, 2, 2]
    assert slicer.assign(named(())).tolist() == []


def test_the_state_survives_json_and_needs_the_file_no_more(labels):
    slicer = by_labels(labels)
    slicer.fit(named(NAMES))
    state = slicer.state()
    labels.unlink()
    other = by_labels(labels)
    other.restore(json.loads(json.dumps(state)))
    assert other.state() == state
    assert other.slice_names == ["air", "land", "water"]
    assert other.assign(named(NAMES)).tolist() == [2, 2, 1, 0]


def test_it_keeps_the_contract_of_slicers(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("name,group\n" + "".join(f"image-{i:02d},{'abc'[i * i % 3]}{i % 2}\n" for i in range(60)))
    check_slicer(Semantic, Semantic.Config(labels=path), n_experts=4)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + LABELS,
        LABELS.replace("\n", "\r\n"),
        LABELS.replace("\n", "\n\n"),
        LABELS.replace(",water", " ,  water "),
        LABELS.replace("image,group", ","),
        LABELS.rstrip("\n"),
    ],
    ids=["byte order mark", "Windows lines", "empty lines", "spaces", "nameless header", "no last line break"],
)
def test_what_spreadsheets_do_to_a_file_changes_nothing(labels, text):
    labels.write_text(text, newline="")
    slicer = by_labels(labels)
    slicer.fit(named(NAMES))
    assert slicer.assign(named(NAMES)).tolist() == [2, 2, 1, 0]


@pytest.mark.parametrize(("k", "shown"), [(2, "2 slices"), (5, "5 slices")])
def test_as_many_groups_as_slices_are_needed(labels, k, shown):
    assert refusal(labels, k=k) == (
        f"{labels}: 3 groups (air, land, water) for {shown}; a slice is one group, so make the two numbers equal"
    )


def test_a_long_list_of_groups_is_cut_and_an_empty_one_is_none(labels):
    labels.write_text("image,group\n" + "".join(f"{i},g{i:02d}\n" for i in range(40)))
    assert "40 groups (g00, g01, g02, g03, g04, g05, g06, g07, g08, g09, g10, g11, ...) for 3" in refusal(labels)
    for text in ("image,group\n", ""):
        labels.write_text(text)
        assert refusal(labels).startswith(f"{labels}: 0 groups (none) for 3 slices")


def test_images_without_a_line_are_counted_and_the_first_is_named(labels):
    mend = "give every image of the dataset a line (the first line of the file is its header)"
    assert refusal(labels, (*NAMES, "x.png", "y.png")) == (
        f"{labels}: no line for 2 of 6 images, the first is 'x.png'; {mend}"
    )
    slicer = by_labels(labels)
    slicer.fit(named(NAMES))
    with pytest.raises(DataError) as error:
        slicer.assign(named(("y.png",)))
    assert str(error.value) == f"{labels}: no line for 1 of 1 images, the first is 'y.png'; {mend}"


def test_data_without_names_is_refused_with_datasets_that_have_them(labels):
    unnamed = InMemoryExamples(torch.zeros(2, 1, 2, 2, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError) as error:
        by_labels(labels).fit(unnamed)
    assert str(error.value) == (
        "semantic: labels go by the names of images, and this dataset has none; use image_folder, celeba_hq or "
        "lsun_church, whose images have names, or features instead of labels"
    )


def test_an_empty_training_split_is_refused(labels):
    assert refusal(labels, ()).startswith("semantic: the training split has no images")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LABELS + "hill.png,air\n", "7: 'hill.png' is listed a second time, after line 4; keep one line per image"),
        (LABELS + "\nhill.png,land\n", "8: 'hill.png' is listed a second time, after line 4; keep one line per image"),
        (LABELS + "x.png,land,2\n", "7: 3 columns instead of two, image name and group; quote a value that holds a"),
        ("image\nx.png\n", "1: 1 column instead of two, image name and group; quote a value that holds a comma"),
        (LABELS + "x.png,\n", "7: the group is empty; fill it in"),
        (LABELS + " ,land\n", "7: the image name is empty; fill it in"),
        (LABELS + '"x.png,land\n', "7: not CSV: unexpected end of data; fix the quotes"),
        (LABELS + '"x".png,land\n', "7: not CSV: ',' expected after '\"'; fix the quotes"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(labels, text, problem):
    labels.write_text(text)
    assert refusal(labels).startswith(f"{labels}:{problem}")


def test_a_file_in_another_encoding_is_named_with_the_line(labels):
    labels.write_bytes((LABELS * 500).encode() + "strö.png,land\n".encode("latin-1"))
    line = 500 * LABELS.count("\n") + 1
    assert refusal(labels) == f"{labels}:{line}: not text in UTF-8; save the file as UTF-8"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    words = "labels is a CSV file of image names and groups"
    assert refusal(tmp_path / "no.csv") == f"'{tmp_path}/no.csv': cannot be read: No such file or directory; {words}"
    assert refusal(tmp_path) == f"'{tmp_path}': cannot be read: Is a directory; {words}"
    assert refusal(Path("a\0.csv")) == f"'a\\x00.csv': cannot be read: embedded null byte; {words}"


# settings


def test_features_are_thumbnails_unless_there_are_labels_and_both_are_refused():
    assert Semantic.Config().features == "thumbnail"
    assert Semantic.Config(labels=Path("a.csv")).features is None
    for settings in (Semantic.Config(), Semantic.Config(labels=Path("a.csv"))):
        assert Semantic.Config.model_validate(settings.model_dump(mode="json")) == settings
        assert list(settings.conflicts(SpecFacts(n_experts=3))) == []
    both = Semantic.Config(labels=Path("a.csv"), features="thumbnail")
    assert list(both.conflicts(SpecFacts(n_experts=3))) == [
        ("features", "labels already say the slice of each image; leave out either labels or features")
    ]


def test_groups_and_names_are_printed_and_kept_by_moeframe_slice(tmp_path, tiny_text):
    for i, split in enumerate(["train"] * 4 + ["test"] * 2):
        path = tmp_path / "data" / split / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(path)
    labels, spec = tmp_path / "labels.csv", tmp_path / "spec.yaml"
    rows = [f"{split}/{i}.png,{'even' if i % 2 == 0 else 'odd'}\n" for i in range(6) for split in ("train", "test")]
    labels.write_text("image,group\n" + "".join(rows))
    dataset = f"dataset: {{type: image_folder, root: {tmp_path / 'data'}, size: 8}}"
    lines = [dataset if line.startswith("dataset") else line for line in tiny_text.splitlines()]
    spec.write_text("\n".join([*lines, f"slicer: {{type: semantic, labels: {labels}}}", ""]))
    result = CliRunner().invoke(main, ["slice", str(spec), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "group_names: even, odd\n" in result.output
    with np.load(tmp_path / "out/slices.npz", allow_pickle=False) as stored:
        assert stored["state/group_names"].tolist() == ["even", "odd"]
        assert stored["train"].tolist() == [0, 1, 0, 1]
