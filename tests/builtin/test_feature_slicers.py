"""Slices by a feature of the pixels: thresholds, texture, lighting."""

import json

import numpy as np
import pytest
import torch
from skimage.filters import laplace
from sliced_images import fitted, made, pictured, random_images

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe_builtin.slicers.color_variance import ColorVariance
from moeframe_builtin.slicers.lighting import Lighting, light_direction, light_level
from moeframe_builtin.slicers.semantic import (
    Semantic,
)
from moeframe_builtin.slicers.support.by_feature import range_names, slices_of, thresholds_of
from moeframe_builtin.slicers.support.luma import luma
from moeframe_builtin.slicers.texture import Texture, laplacian_variance

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
