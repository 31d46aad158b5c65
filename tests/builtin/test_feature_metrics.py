"""Metrics in a feature space: the images they see, and what they state."""

from pathlib import Path

import pytest
import torch
from made_up_features import CPU, Compared, Moments, in_space, saved
from pydantic import ValidationError
from small_evaluation import evaluation_of

from moeframe.errors import UnavailableError
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe_builtin.features.catalogue import SPACES
from moeframe_builtin.features.efficientnet import PACKAGES
from moeframe_builtin.features.inception import Inception
from moeframe_builtin.features.space import Extracted, SpaceSettings, to_rgb, why_missing
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric
from moeframe_builtin.metrics.precision import PrecisionMetric
from moeframe_builtin.metrics.recall import RecallMetric
from moeframe_builtin.metrics.support.feature_source import FeatureSource


@pytest.fixture(scope="module")
def moments(tmp_path_factory) -> Path:
    return saved(Moments(), tmp_path_factory.mktemp("modules") / "moments.pt")


# images


def test_images_of_17_levels_and_their_8_bit_copies_have_equal_features(moments):
    few = Compared(levels=17)
    many = Compared()
    many.pairs = tuple((images.double() * 255 / 16).round().long() for images in few.pairs)
    for split in ("test", "train"):
        images = getattr(few, split).images(torch.arange(len(getattr(few, split))))
        copies = (images.double() * 255 / 16).round().long()
        setattr(many, split, InMemoryExamples(copies, torch.zeros(len(copies), dtype=torch.long)))
    one, two = (in_space(FrechetMetric, moments).measure(given) for given in (few, many))
    assert one.value == two.value
    assert one.parts == two.parts


def test_levels_scale_to_8_bits_by_rounding_to_the_nearest():
    assert to_rgb(torch.arange(17).view(1, 1, 1, 17), 17)[0, 0, 0].tolist() == [round(255 * i / 16) for i in range(17)]
    levels = torch.arange(256).view(1, 1, 16, 16)
    assert torch.equal(to_rgb(levels, 256)[:, :1].long(), levels)


def test_channels_keep_their_order():
    pixel = torch.tensor([10, 20, 30]).view(1, 3, 1, 1)
    assert to_rgb(pixel, 256).flatten().tolist() == [10, 20, 30]


@pytest.mark.skipif(bool(why_missing(PACKAGES)), reason="EfficientNet-Lite0 is not installed")
def test_a_pattern_finer_than_the_networks_pixels_is_seen_as_its_mean():
    """Shrunk without averaging, these stripes would be white: only their bright columns would be looked at."""
    space = SPACES["efficientnet_lite0"](SpaceSettings(input_size=32), CPU)
    column = torch.arange(128) % 4
    stripes = (255 * ((column == 1) | (column == 2))).to(torch.uint8).expand(1, 3, 128, 128)
    grey, white = (torch.full_like(stripes, level) for level in (128, 255))
    seen, mean, bright = (space.extract(images).features for images in (stripes, grey, white))
    assert float((seen - mean).norm()) < 0.5 * float((seen - bright).norm())


def test_grey_images_are_their_rgb_copies(moments):
    grey = Compared(channels=1)
    colour = Compared()
    colour.pairs = tuple(images.repeat(1, 3, 1, 1) for images in grey.pairs)
    for split in ("test", "train"):
        images = getattr(grey, split).images(torch.arange(len(getattr(grey, split)))).repeat(1, 3, 1, 1)
        setattr(colour, split, InMemoryExamples(images, torch.zeros(len(images), dtype=torch.long)))
    one, two = (in_space(FrechetMetric, moments).measure(given) for given in (grey, colour))
    assert one.value == two.value


def test_images_of_two_channels_are_refused(moments):
    with pytest.raises(UnavailableError, match="1 or 3 channels, and these have 2"):
        in_space(FrechetMetric, moments).measure(Compared(channels=2))


@pytest.mark.parametrize("metric", [FrechetMetric, KidMetric, PrecisionMetric])
def test_figures_do_not_depend_on_the_batch_size(moments, metric):
    values = [in_space(metric, moments, batch_size=size).measure(Compared()).value for size in (1, 7, 64)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_missing(PACKAGES)), reason="EfficientNet-Lite0 is not installed")
def test_efficientnet_figures_do_not_depend_on_the_batch_size():
    values = []
    for size in (3, 16):
        settings = {"batch_size": size, "input_size": 32, "allow_small_n": True}
        values.append(FrechetMetric(FrechetMetric.Config(**settings)).measure(Compared(16, 16, 16)).value)
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_features_are_extracted_once_for_all_metrics(moments, monkeypatch):
    given, calls = Compared(), []
    extract = SPACES["torchscript"].extract
    monkeypatch.setattr(
        SPACES["torchscript"], "extract", lambda self, images: (calls.append(len(images)), extract(self, images))[1]
    )
    for metric in (FrechetMetric, KidMetric, PrecisionMetric, RecallMetric):
        in_space(metric, moments).measure(given)
    assert sum(calls) == 1 + 40 + 40 + 40  # how many features; samples, test images, as many for the floor


def test_a_subset_of_the_reference_is_drawn_by_the_seed_not_the_first(moments):
    given = Compared()
    source = FeatureSource(in_space(FrechetMetric, moments, samples=10).config, given)
    first = Moments()(given.pairs[0][:10].float() / 255)
    everything = Moments()(given.pairs[0].float() / 255)
    assert not torch.equal(source.reference.features, first)
    assert {tuple(row) for row in source.reference.features.tolist()} <= {tuple(row) for row in everything.tolist()}
    assert source.how()["against"] == "10 of 40 test images, drawn by the seed"


# what is stated


def test_every_figure_states_its_n_its_space_and_its_caution(moments):
    given = Compared()
    for metric in (FrechetMetric, KidMetric, PrecisionMetric, RecallMetric):
        found = in_space(metric, moments).measure(given)
        assert found.n == found.how["samples"] == 40
        assert "moments" in found.unit
        assert found.how["feature_space"] == "TorchScript module moments.pt"
        assert "rounded to 8 bits" in found.how["preprocessing"]
        assert found.how["caution"]
        assert "real_against_real" in found.parts
        assert found.how["real_against_real"].startswith("40 of 60 train images, drawn by the seed against 40 of")


def test_samples_that_are_darker_than_real_images_score_worse_than_real_ones(moments):
    given = Compared()
    given.pairs = (given.pairs[0], given.pairs[1] // 3)
    for metric in (FrechetMetric, KidMetric, PrecisionMetric, RecallMetric):
        found = in_space(metric, moments).measure(given)
        worse = found.value - found.parts["real_against_real"]
        assert worse > 0 if found.better == "lower" else worse < 0


def test_only_inception_makes_an_fid_or_a_kid(moments):
    given = Compared()
    frechet, kid = (in_space(metric, moments).measure(given) for metric in (FrechetMetric, KidMetric))
    assert "not an FID" in frechet.how["caution"]
    assert "not a KID" in kid.how["caution"]
    assert "FID" not in frechet.unit
    assert "KID" not in kid.unit


@pytest.mark.slow
def test_the_interval_is_given_from_400_images_on_and_holds_the_value(moments):
    given = Compared(400, 400, 30)
    for metric in (FrechetMetric, KidMetric):
        found = in_space(metric, moments).measure(given)
        assert found.interval[0] < found.value < found.interval[1]
        assert "jackknife" in found.how["interval_method"]
        assert found.how["real_against_real"].startswith("all 30 train images against 30 of the test images")


def test_extrapolation_is_a_part_beside_the_value_or_says_why_not(moments):
    found = in_space(FrechetMetric, moments, extrapolate=True).measure(Compared(200, 200, 200))
    assert 0 < found.parts["at_infinite_n"] < found.value
    assert "at N = 200, 100, 66, mean of disjoint blocks" in found.how["at_infinite_n"]
    few = in_space(FrechetMetric, moments, extrapolate=True).measure(Compared())
    assert "at_infinite_n" not in few.parts
    assert few.how["at_infinite_n"].startswith("none: 40 images; needs 75")


@pytest.fixture
def moments_as_logits(monkeypatch) -> None:
    """Inception stands in with a few moments of the image, so that its score needs no weights."""

    def extract(self: Inception, images: torch.Tensor) -> Extracted:
        moments = Moments()(images.float() / 255)
        return Extracted(moments, 9 * moments)

    monkeypatch.setattr(Inception, "weights_sha256", "6726825d")
    monkeypatch.setattr(Inception, "extract", extract)


def test_the_inception_score_states_its_splits_and_the_score_of_real_images(moments_as_logits):
    found = InceptionScoreMetric(InceptionScoreMetric.Config(splits=4)).measure(Compared(8000, 8000, 10))
    assert (found.unit, found.better, found.n) == ("Inception score", "higher", 8000)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.how["splits"].startswith("mean of 4 splits of about 2000 images")
    assert found.how["real_images"] == "the score of 8000 test images in as many splits"
    assert 1 < found.value < found.parts["real_images"]  # darker samples look more alike
    assert "NOT the published" not in found.how["feature_space"]


def test_the_inception_score_needs_no_more_real_images_than_there_are(moments_as_logits):
    metric = InceptionScoreMetric(InceptionScoreMetric.Config(samples=40, splits=4))
    found = metric.measure(Compared(40, 12, 10))
    assert found.how["real_images"] == "the score of 12 test images in as many splits"
    few = InceptionScoreMetric(InceptionScoreMetric.Config(samples=12, splits=4)).measure(Compared(40, 12, 10))
    assert found.parts["at_floor_n"] == few.value
    assert found.parts["real_images"] == few.parts["real_images"]
    none = metric.measure(Compared(40, 7, 10))
    assert none.how["real_images"] == "none: 7 test images in 4 splits leave one with one"
    assert set(none.parts) == {"sd_of_splits"}


@pytest.mark.slow
def test_few_real_images_are_warned_of_however_many_the_samples(moments):
    given = Compared(10_000, 40, 40)
    config = {"samples": 10_000, "reference_images": 40}
    for metric in (FrechetMetric, KidMetric, PrecisionMetric):
        assert "N = 10000 against 40 real images" in in_space(metric, moments, **config).measure(given).how["caution"]


def test_inception_with_other_weights_gives_no_fid_of_that_name(moments_as_logits, monkeypatch):
    monkeypatch.setattr(Inception, "weights_sha256", "0123456789")
    given = Compared()
    assert FidMetric(FidMetric.Config()).measure(given).unit == "FID, unpublished Inception features"
    score = InceptionScoreMetric(InceptionScoreMetric.Config(splits=4)).measure(given)
    assert score.unit == "Inception score, unpublished Inception"


def test_splits_with_a_single_sample_are_refused(moments_as_logits):
    with pytest.raises(UnavailableError, match="15 samples in 10 splits .* set splits: 7 or fewer"):
        InceptionScoreMetric(InceptionScoreMetric.Config()).measure(Compared(15, 15, 15))


def test_inception_gives_the_fid_and_the_kid_their_names(moments_as_logits):
    given = Compared()
    assert FidMetric(FidMetric.Config()).measure(given).unit == "FID, Inception features"
    kid = KidMetric(KidMetric.Config()).measure(given)
    assert kid.unit == "KID, Inception features"
    assert kid.how["subsets"].startswith("mean of 100 subsets of 40 images (floor: 40)")
    assert "N = 40" in kid.how["caution"]


@pytest.mark.slow
@pytest.mark.skipif(bool(why_missing(PACKAGES)), reason="EfficientNet-Lite0 is not installed")
def test_the_distance_of_a_model_states_its_floor_and_does_not_depend_on_its_batches(registry, tmp_path):
    metric = FrechetMetric(FrechetMetric.Config(input_size=32, allow_small_n=True))
    found = metric.measure(evaluation_of(registry, tmp_path / "one"))
    other = metric.measure(evaluation_of(registry, tmp_path / "other", evaluation={"batch_size": 5}))
    assert found.value == pytest.approx(other.value, rel=1e-4)
    assert found.unit == "Fréchet distance, EfficientNet-Lite0 features"
    assert found.n == 24
    assert found.value > found.parts["real_against_real"] > 0  # samples of an untrained network
    assert found.how["real_against_real"].startswith("24 of 40 train images, drawn by the seed against 24 of the test")
    assert len(found.how["weights_sha256"]) == 64


def test_precision_and_recall_tell_poor_images_from_missing_ones(moments):
    given = Compared(40, 40, 40)
    half = given.pairs[0][:4].repeat(10, 1, 1, 1)  # good images, few of them
    given.pairs = (given.pairs[0], half)
    assert in_space(PrecisionMetric, moments).measure(given).value == 1
    assert in_space(RecallMetric, moments).measure(given).value < 0.2


@pytest.mark.parametrize("samples", [0, 1])
def test_no_samples_are_refused_by_the_spec(samples):
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        FrechetMetric.Config(samples=samples)


def test_more_samples_than_real_images_are_measured_against_all_of_them_where_that_is_asked(moments):
    given = Compared(60, 40, 30)
    for component in (FrechetMetric, KidMetric, PrecisionMetric):
        found = in_space(component, moments, samples=50, reference_images="all").measure(given)
        assert found.n == 50
        assert found.how["against"] == "all 40 test images"
        assert found.how["real_against_real"].startswith("all 30 train images against 30 of the test images")
    message = (
        "fewer real images than requested: 40 test images for reference_images: 41; set reference_images: 40 or fewer"
    )
    with pytest.raises(UnavailableError, match=message):
        in_space(FrechetMetric, moments, samples=50, reference_images=41).measure(given)


@pytest.mark.parametrize("component", [FrechetMetric, KidMetric, PrecisionMetric, RecallMetric])
def test_the_floor_of_fewer_images_has_the_samples_figure_at_that_number_beside_it(component, moments):
    few = in_space(component, moments, samples=30, reference="train").measure(Compared(60, 30, 60))
    found = in_space(component, moments, samples=60, reference="train").measure(Compared(60, 30, 60))
    assert "at_floor_n" not in few.parts
    assert found.how["at_floor_n"].startswith("the same metric for 30 samples")
    assert found.parts["at_floor_n"] == pytest.approx(few.value)
    assert found.parts["real_against_real"] == pytest.approx(few.parts["real_against_real"])


def test_a_floor_of_fewer_images_than_features_is_no_floor(moments):
    found = in_space(FrechetMetric, moments, samples=40, reference="train").measure(Compared(40, 20, 60))
    assert "real_against_real" not in found.parts
    assert found.how["real_against_real"] == "none: 20 real images on a side are fewer than 24 features"
    assert "floor" not in found.how["caution"]
