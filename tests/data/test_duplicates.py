"""Duplicates: copies are found, different images are not, and a leak into train is counted and shown."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from moeframe.data.duplicates import Counts, find_duplicates, fingerprints_of, repeated, standing_in
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.runs.pipeline import run


def split(images: torch.Tensor, **settings) -> InMemoryExamples:
    return InMemoryExamples(images, torch.arange(len(images)), **settings)


def fingerprints(images: torch.Tensor, n_levels: int = 256):
    return fingerprints_of(split(images), n_levels)


def plain(*levels: int) -> torch.Tensor:
    """Images of one level each."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """Crops of real photographs, 96x96."""
    from skimage import data

    crops = []
    for photo in (data.astronaut(), data.coffee(), data.chelsea()):
        pixels = torch.from_numpy(photo).permute(2, 0, 1)
        crops.append(pixels.unfold(1, 96, 72).unfold(2, 96, 72).permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(crops).long()


def changed(images: torch.Tensor, change) -> torch.Tensor:
    pictures = [change(Image.fromarray(image.permute(1, 2, 0).byte().numpy())) for image in images]
    return torch.stack([torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1).long() for p in pictures])


def as_jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def shrunk(picture: Image.Image) -> Image.Image:
    return picture.resize((48, 48), Image.Resampling.LANCZOS).resize((96, 96), Image.Resampling.BICUBIC)


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.04)


def test_exact_duplicates_are_counted_within_and_across_splits_by_pixels_alone():
    found = find_duplicates(fingerprints(plain(1, 2, 1, 1, 5, 5)), fingerprints(plain(7, 1, 1, 8)))
    assert found.exact == Counts(within_train=3, within_test=1, test_images_in_train=2)


def test_an_exact_duplicate_is_near_too(photos):
    train, test = fingerprints(torch.cat([photos, photos[:3]])), fingerprints(photos[5:8])
    found = find_duplicates(train, test)
    assert found.exact == found.near == Counts(within_train=3, within_test=0, test_images_in_train=3)
    assert found.shown == ((0, 5), (1, 6), (2, 7))


@pytest.mark.parametrize("change", [as_jpeg, shrunk, brighter])
def test_a_copy_that_was_changed_a_little_is_found(photos, change):
    found = standing_in(fingerprints(changed(photos, change)), fingerprints(photos))
    assert float((found == torch.arange(len(photos))).float().mean()) > 0.95


def test_different_crops_of_photographs_are_no_duplicates(photos):
    assert int(repeated(fingerprints(photos)).sum()) == 0


def test_a_mirrored_copy_is_not_found_as_the_method_says(photos):
    mirrored = fingerprints(photos.flip(3))
    assert int((standing_in(mirrored, fingerprints(photos)) >= 0).sum()) == 0


def test_noise_and_digits_hold_no_duplicates(registry):
    from moeframe.interfaces.dataset import Dataset

    for name in ("gaussian", "digits"):
        component = registry.get(Dataset, name)
        dataset = component(component.Config(type=name))
        train, test = (fingerprints_of(dataset.split(part), dataset.image.levels) for part in ("train", "test"))
        found = find_duplicates(train, test)
        assert found.near == found.exact == Counts(0, 0, 0)


def test_only_later_images_repeat(photos):
    assert repeated(fingerprints(torch.cat([photos[:2], photos[:1]]))).tolist() == [False, False, True]


def test_blocks_of_rows_join_without_seam(photos, monkeypatch):
    train = fingerprints(torch.cat([photos, changed(photos, as_jpeg)]))
    whole = repeated(train)
    monkeypatch.setattr("moeframe.data.duplicates._CELLS", 7 * len(train.digests))
    monkeypatch.setattr("moeframe.data.duplicates._PAIRS", 3)
    assert torch.equal(repeated(train), whole)


@pytest.mark.slow
def test_a_leak_is_counted_in_the_card_and_shown_in_the_report(tmp_path, tiny_text, photos):
    for part, rows in (("train", range(40)), ("test", (3, 9, 70, 71))):
        (tmp_path / "data" / part).mkdir(parents=True)
        for i in rows:
            pixels = photos[i].permute(1, 2, 0).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "data" / part / f"{i:02d}.png")
    spec = tmp_path / "spec.yaml"
    folder = f"{{type: image_folder, root: {tmp_path}/data, size: 16}}"
    spec.write_text(tiny_text.replace("{type: gaussian, size: 4, levels: 8, n_train: 64, n_test: 16}", folder))
    run(spec, out=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "card.json").read_text())["duplicates"]
    assert found["exact"] == {"within_train": 0, "within_test": 0, "test_images_in_train": 2}
    assert found["leakage"]["leaked_exactly"] == "50.00%"
    assert found["first_test_images_in_train"] == ["test/03.png = train/03.png", "test/09.png = train/09.png"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Test images that also appear in the training split" in report
    assert "test/09.png = train/09.png" in report
    assert (tmp_path / "run" / "duplicates.png").is_file()
