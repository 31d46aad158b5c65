"""PSNR and SSIM against scikit-image, and figures as a curve over noise level."""

import math
import re

import numpy as np
import pytest
import torch
from small_evaluation import GivenImages, evaluation_of, given_images

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe_builtin.metrics.psnr import PsnrMetric
from moeframe_builtin.metrics.ssim import SsimMetric


@pytest.fixture(scope="module")
def untrained(registry, tmp_path_factory) -> ModelEvaluation:
    """32 test images of 8x8 pixels."""
    dataset = {"type": "gaussian", "size": 8, "std": 0.3, "n_train": 40, "n_test": 32}
    return evaluation_of(registry, tmp_path_factory.mktemp("untrained"), dataset=dataset)


@pytest.mark.parametrize(("shape", "levels"), [((3, 16, 20), 256), ((1, 28, 28), 256), ((1, 12, 12), 17)])
def test_psnr_is_the_mean_of_scikit_images(shape, levels):
    from skimage.metrics import peak_signal_noise_ratio

    given = given_images(shape=shape, levels=levels)
    direct = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=levels - 1) for a, b in zip(*given.pairs, strict=True)
    ]
    found = PsnrMetric(PsnrMetric.Config()).measure(given)
    assert found.value == pytest.approx(np.mean(direct), rel=1e-9)
    assert (found.unit, found.better, found.n) == ("dB", "higher", 4)


@pytest.mark.parametrize(("shape", "levels"), [((3, 16, 20), 256), ((1, 28, 28), 256), ((1, 12, 12), 17)])
def test_ssim_is_the_mean_of_scikit_images_with_the_settings_of_wang(shape, levels):
    from skimage.metrics import structural_similarity

    given = given_images(shape=shape, levels=levels)
    direct = [
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=levels - 1,
            channel_axis=0,
        )
        for a, b in zip(*given.pairs, strict=True)
    ]
    found = SsimMetric(SsimMetric.Config()).measure(given)
    assert found.value == pytest.approx(np.mean(direct), rel=1e-9)
    assert found.better == "higher"
    assert "note" not in found.how


def test_ssim_of_images_smaller_than_its_window_says_so():
    found = SsimMetric(SsimMetric.Config()).measure(given_images(shape=(1, 8, 8), levels=17))
    assert math.isfinite(found.value)
    assert "smaller than the window" in found.how["note"]


def test_equal_images_have_an_ssim_of_one_and_no_psnr():
    given = given_images()
    same = GivenImages(given.pairs[0], given.pairs[0], 256)
    assert SsimMetric(SsimMetric.Config()).measure(same).value == pytest.approx(1)
    with pytest.raises(UnavailableError, match=r"4 of 4 reconstructions are exact.*; set a lower log_snr"):
        PsnrMetric(PsnrMetric.Config()).measure(same)


def test_an_exact_reconstruction_is_left_out_of_the_psnr_and_counted():
    given = given_images()
    given.pairs[1][1] = given.pairs[0][1]
    found = PsnrMetric(PsnrMetric.Config()).measure(given)
    assert found.n == 3
    assert set(found.how["exact_left_out"].values()) == {1}


# the curve over noise level


@pytest.mark.slow
@pytest.mark.parametrize("metric", [PsnrMetric, SsimMetric])
def test_a_point_of_the_curve_is_the_value_measured_at_that_level(metric, untrained):
    curve = metric(metric.Config(curve=[-4.0, 2.5])).measure(untrained)
    alone = {level: metric(metric.Config(log_snr=level, curve=[])).measure(untrained) for level in (-4.0, 0.0, 2.5)}
    assert curve.value == alone[0.0].value
    assert curve.parts == {"log_snr -4": alone[-4.0].value, "log_snr 2.5": alone[2.5].value}
    assert alone[0.0].parts == {}


@pytest.mark.slow
@pytest.mark.parametrize("metric", [PsnrMetric, SsimMetric])
def test_images_are_brought_back_better_from_less_noise(metric, untrained):
    parts = metric(metric.Config()).measure(untrained).parts
    assert list(parts) == ["log_snr -4", "log_snr -2", "log_snr 0", "log_snr 2", "log_snr 4"]
    assert sorted(parts.values()) == list(parts.values())


def test_reconstruction_starts_at_the_stated_noise_level(untrained, monkeypatch):
    asked, denoiser = [], untrained.denoiser

    def noted(z, log_snr, items):
        asked.extend(log_snr.tolist())
        return denoiser(z, log_snr, items)

    monkeypatch.setattr(untrained, "denoiser", noted)
    untrained.reconstructions(1.5, 2)
    assert asked[:2] == pytest.approx([1.5] * 2, abs=1e-4)
    assert sorted(asked) == asked


def test_the_interval_is_of_the_mean_over_images(untrained):
    pairs = untrained.reconstructions(0.0, 32)
    rows = zip(pairs.originals.double(), pairs.images.double(), strict=True)
    values = torch.stack([10 * torch.log10(255**2 / (a - b).square().mean()) for a, b in rows])
    found = PsnrMetric(PsnrMetric.Config(curve=[])).measure(untrained)
    low, high = found.interval
    assert found.value == pytest.approx(float(values.mean()))
    assert (high - low) / 2 == pytest.approx(2.0395 * float(values.std()) / 32**0.5, rel=1e-4)  # t(31)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"log_snr": 11.0}, "11"), ({"curve": [-30.0, 0.0]}, "-30"), ({"log_snr": -11.0, "curve": [12.5]}, "-11, 12.5")],
)
def test_levels_outside_the_schedule_are_refused_with_its_range(settings, named, untrained):
    text = f"log_snr {named} is outside the schedule's range -10 .. 10; set log_snr and curve within it"
    before = set(untrained._once)
    with pytest.raises(UnavailableError, match=re.escape(text)):
        PsnrMetric(PsnrMetric.Config(**settings)).measure(untrained)
    assert set(untrained._once) == before  # before anything was computed
    assert measure(PsnrMetric(PsnrMetric.Config(**settings)), untrained) == {"unavailable": text}


def test_the_ends_of_the_schedule_are_within_it(untrained):
    found = PsnrMetric(PsnrMetric.Config(curve=[-10.0, 10.0], images=2)).measure(untrained)
    assert "log_snr -10" in found.parts


def test_a_level_where_all_is_exact_has_no_point_and_is_counted():
    given = given_images()

    class ExactAtFour(GivenImages):
        def reconstructions(self, log_snr, n):
            pairs = super().reconstructions(log_snr, n)
            return type(pairs)(pairs.originals, pairs.originals, log_snr) if log_snr == 4 else pairs

    found = PsnrMetric(PsnrMetric.Config()).measure(ExactAtFour(*given.pairs, 256))
    assert "log_snr 4" not in found.parts
    assert found.how["exact_left_out"] == {**dict.fromkeys(found.parts, 0), "log_snr 4": 4}


def test_reconstructions_are_kept_in_a_byte_per_level_and_handed_out_as_integers(untrained):
    first, second = (untrained.reconstructions(1.5, 5) for _ in range(2))
    kept = untrained._once["reconstructions", 1.5, 5]
    assert kept.levels.dtype == torch.uint8
    assert first.images.dtype == first.originals.dtype == torch.int64
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.originals, untrained.test.images(untrained.assembly.test_numbers(5)))


def test_without_a_number_there_are_at_most_256_images_and_a_dump_says_the_same(untrained):
    config = PsnrMetric.Config()
    again = PsnrMetric.Config.model_validate(config.model_dump(mode="json"))
    assert PsnrMetric(again).measure(untrained).n == len(untrained.test) == 32
    with pytest.raises(UnavailableError, match="fewer test images than requested: 32 for images: 256; set images: 32"):
        PsnrMetric(PsnrMetric.Config(images=256)).measure(untrained)
