"""`moeframe slice` and what a run keeps of its slices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from moeframe.assembly import Slices
from moeframe.cli import main
from moeframe.errors import InputError
from moeframe.runs.slicing import slice_data

SPEC = Path(__file__).parents[2] / "specs/digits.yaml"
PATCHES = "dataset={type: photo_patches, size: 16}"


def test_slice_prints_sizes_and_writes_a_contact_sheet_of_each_slice(tmp_path):
    result = CliRunner().invoke(main, ["slice", str(SPEC), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "training images" in result.output
    assert "slice_of_class: " in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"slices.npz", *(f"slice-{k}.png" for k in range(4))}


def test_slices_are_those_of_the_run(tmp_path):
    slices = slice_data(SPEC, tmp_path)
    stored = np.load(tmp_path / "slices.npz")
    assert stored["train"].tolist() == slices.train.tolist()
    assert sum(slices.train_sizes) == 1348
    assert min(slices.train_sizes) > 0
    from moeframe.assembly import assemble
    from moeframe.plugin.registry import Registry
    from moeframe.spec.loader import load_spec

    registry = Registry.installed()
    assert assemble(load_spec(SPEC, registry), registry, 0).slices.train.tolist() == slices.train.tolist()


def test_contact_sheets_are_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        slice_data(SPEC, tmp_path / name)
    for k in range(4):
        assert (tmp_path / f"a/slice-{k}.png").read_bytes() == (tmp_path / f"b/slice-{k}.png").read_bytes()


def test_a_spec_without_a_slicer_is_told_what_to_add(tmp_path):
    with pytest.raises(InputError, match="has no slicer; add a section 'slicer', for example"):
        slice_data(SPEC.parent / "digits_single.yaml", tmp_path)


def test_a_tiny_slice_is_a_warning_with_its_size(tmp_path):
    groups = "slicer={type: class_group, groups: [[0], [1], [2], [3, 4, 5, 6, 7, 8, 9]]}"
    assert (
        "warning: slice"
        not in CliRunner().invoke(main, ["slice", str(SPEC), "--out", str(tmp_path), "--set", groups]).output
    )
    many = ["--set", "experts.0.copies=2", "--set", "slicer={type: texture, balance: natural}", "--set", PATCHES]
    output = CliRunner().invoke(main, ["slice", str(SPEC), "--out", str(tmp_path), *many]).output
    assert "warning: slice 1 (" in output
    assert ") has 247 training images, under a tenth of an even share" in output


@pytest.mark.slow
def test_run_warns_too_and_the_report_says_it(tiny_spec, tmp_path):
    arguments = ["run", str(tiny_spec), "--out", str(tmp_path / "run"), "--set", PATCHES]
    arguments += ["--set", "experts.0.copies=2", "--set", "slicer={type: texture, balance: natural}"]
    test_labels = ["--set", "training.steps=1", "--set", "metrics=[{type: parameters}]"]
    result = CliRunner().invoke(main, [*arguments, *test_labels])
    assert result.exit_code == 0, result.output
    [warning] = [line for line in result.output.splitlines() if line.startswith("warning: slice")]
    caution = warning.partition(") has ")[2]
    assert caution.endswith("training images, under a tenth of an even share")
    assert f"Caution: {caution}." in (tmp_path / "run/report.html").read_text()
    assert (tmp_path / "run/report.html").read_text().count("random training images are shown") == 2


def test_a_slice_without_test_images_is_named():
    slices = Slices(None, torch.tensor([0, 1, 0, 1]), torch.tensor([1, 1]), 2)
    assert slices.cautions == ["no test images, so nothing is measured on it", ""]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            ["slicer={type: class_group}", "experts.0.copies=11"],
            "--set slicer={type: class_group}, slicer: class_group: 11 slices need as many classes, but the training "
            "data has 10; use at most 10 experts or another slicer",
        ),
        (
            ["slicer={type: attribute, groups: [[Big_Nose]]}", "experts.0.copies=2"],
            "--set slicer={type: attribute, groups: [[Big_Nose]]}, slicer: attribute: the data has no attributes, so "
            "no 'Big_Nose'; use a dataset that has them, or another slicer",
        ),
    ],
)
def test_what_a_slicer_finds_wrong_comes_with_the_place_in_the_spec(tmp_path, settings, problem):
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(main, ["slice", str(SPEC), "--out", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert result.output == f"error: {problem}\n"


def test_the_place_is_a_line_of_the_file(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text(SPEC.read_text().replace("copies: 4", "copies: 11"))
    line = 1 + [text.startswith("slicer:") for text in path.read_text().splitlines()].index(True)
    result = CliRunner().invoke(main, ["slice", str(path), "--out", str(tmp_path / "out")])
    assert result.output.startswith(f"error: {path}:{line}:1, slicer: class_group: 11 slices need as many classes")
