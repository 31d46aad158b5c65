"""`moeframe slice` and what a run keeps of its slices."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from moeframe.cli import main
from moeframe.errors import InputError
from moeframe.slicing import slice_data

SPEC = Path(__file__).parent.parent / "specs/digits.yaml"
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
    from moeframe.registry import Registry
    from moeframe.spec_file import load_spec

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
    assert "warning: slice 1 has 247 images, under a tenth of an even share" in output
