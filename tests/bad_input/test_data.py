"""Corrupt, missing or too few images: the file or the split is named, and the run resumes once it is fixed."""

import pytest
from command_line import call, refusal
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    """A folder of four training and two test images."""
    for split, n in (("train", 4), ("test", 2)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (4, 4), 40 * i).save(tmp_path / "data" / split / f"{i}.png")
    return tmp_path / "data"


def of(pictures):
    return ("--set", f"dataset={{type: image_folder, root: {pictures}, size: 4, channels: 1}}")


@pytest.mark.parametrize(
    ("split", "content"), [("train", b""), ("train", b"no image"), ("test", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")]
)
@pytest.mark.slow
def test_a_corrupt_image_met_during_a_run_is_named_and_the_run_resumes(tiny_spec, pictures, split, content):
    path = pictures / split / "1.png"
    sound = path.read_bytes()
    path.write_bytes(content)
    command = ("run", tiny_spec, "--out", tiny_spec.parent / "run", *of(pictures))
    message = refusal(2, *command)
    assert message.startswith(f"error: image {path} ")
    assert message.endswith("replace or delete it")
    path.write_bytes(sound)
    assert call(*command).exit_code == 0


def test_a_truncated_image_met_during_a_run_is_named(tiny_spec, pictures):
    path = pictures / "train/1.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert f"error: image {path} cannot be decoded" in refusal(
        2, "run", tiny_spec, "--out", tiny_spec.parent / "run", *of(pictures)
    )


def test_a_missing_data_folder_is_named_and_the_corrected_spec_may_use_the_run_folder(tiny_spec, pictures, tmp_path):
    out = ("--out", tmp_path / "run")
    assert refusal(2, "run", tiny_spec, *out, *of(tmp_path / "none")) == (
        f"error: image_folder: root {tmp_path}/none does not exist; put the images there or set dataset.root"
    )
    assert call("run", tiny_spec, *out, *of(pictures)).exit_code == 0


def test_a_split_too_small_to_measure_is_refused(tiny_spec, tmp_path):
    assert refusal(2, "run", tiny_spec, "--out", tmp_path / "run", "--set", "dataset.n_test=1") == (
        "error: dataset 'gaussian' has 64 training and 1 test images; "
        "a run needs at least 1 and 2, because an interval needs two"
    )


def test_slices_without_images_are_refused(tiny_spec, tmp_path):
    settings = ("slicer={type: parity}", "experts.0.copies=3", "dataset={type: digits}")
    arguments = [part for setting in settings for part in ("--set", setting)]
    message = refusal(2, "run", tiny_spec, "--out", tmp_path / "run", *arguments)
    assert message.startswith(
        "error: --set slicer={type: parity}, slicer: 'parity' leaves slice 2 of 3 without training images (sizes ["
    )
    assert message.endswith("use fewer experts or another slicer")
