"""A run says what it is about to do: data and split, files ignored, experts with source and range."""

import pytest
import torch
from small_folders import write_image

from moeframe.assembly import assemble
from moeframe.interfaces.expert import Expert
from moeframe.runs.announcement import announcement
from moeframe.spec.loader import load_spec


@pytest.fixture
def announced(registry, tiny_spec):
    """The lines for the tiny spec with some overrides."""

    def lines(*overrides):
        return announcement(assemble(load_spec(tiny_spec, registry, overrides), registry, seed=0))

    return lines


def test_three_lines_say_what_a_run_is_made_of(announced):
    assert announced() == [
        "data: gaussian, 64 training and 16 test images; split: independent draws from one density",
        "files ignored: none",
        "experts: 2 x unet (new weights)",
    ]


def test_files_that_a_folder_ignores_are_counted_by_extension(announced, tmp_path):
    for split, n in (("train", 4), ("test", 2)):
        for i in range(n):
            write_image(tmp_path / "data" / split / f"{i}.png")
            (tmp_path / "data" / split / f"{i}.psd").touch()
    data, ignored_files, _ = announced(f"dataset={{type: image_folder, root: {tmp_path}/data, size: 4}}")
    assert data == "data: image_folder, 4 training and 2 test images; split: folders train/ and test/"
    assert ignored_files == "files ignored: 6 .psd"


def test_a_slow_card_is_not_made_for_the_announcement(announced, tmp_path, monkeypatch):
    for split in ("train", "test"):
        for i in range(2):
            write_image(tmp_path / "data" / split / f"{i}.png")
    monkeypatch.setattr("moeframe_builtin.datasets.image_folder.ImageFolder.card", lambda self: pytest.fail("card"))
    assert len(announced(f"dataset={{type: image_folder, root: {tmp_path}/data, size: 4}}")) == 3


def test_experts_that_differ_are_named_one_by_one_with_source_and_range(announced, registry, tiny_spec):
    assembly = assemble(load_spec(tiny_spec, registry), registry, seed=0)
    first = assembly.model.experts[0]

    class Pretrained(Expert):
        """An expert with a source and a range."""

        Config = type(first.config)

        @property
        def log_snr_range(self):
            return (-6.0, 2.5)

        def provenance(self):
            return {"source": "not stated", "path": "runs/quality"}

        def forward(self, z, log_snr):
            return torch.zeros_like(z)

    assembly.model.experts[1] = Pretrained(first.config, image=assembly.image)
    assert announcement(assembly)[2] == ("experts: unet (new weights); unet (runs/quality, log-SNR -6 to 2.5)")
