"""What metrics in a feature space refuse."""

import importlib.util
from pathlib import Path
from typing import get_args

import pytest
import torch
from made_up_features import INCEPTION_METRICS, Compared, Moments, in_space, saved

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import measure
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.spec.binding import bind
from moeframe.spec.messages import UnlocatedProblemsError
from moeframe_builtin.features.catalogue import SPACES, SpaceName
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.metrics.precision import PrecisionMetric
from moeframe_builtin.metrics.recall import RecallMetric


class Broken(torch.nn.Module):
    """NaN for a bright image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean(dim=[2, 3])
        return torch.where(means > 0.7, torch.full_like(means, float("nan")), means)


@pytest.fixture(scope="module")
def moments(tmp_path_factory) -> Path:
    return saved(Moments(), tmp_path_factory.mktemp("modules") / "moments.pt")


def test_fewer_images_than_features_are_refused_unless_allowed(moments):
    given = Compared(20, 20, 20)
    with pytest.raises(UnavailableError, match=r"20 images are fewer than the 24 moments .* allow_small_n: true"):
        in_space(FrechetMetric, moments).measure(given)
    found = in_space(FrechetMetric, moments, allow_small_n=True).measure(given)
    assert found.n == 20
    assert found.interval is None
    assert (
        found.how["interval_method"]
        == "none: 20 images; the error of the distance is known from 400 (4 per feature) on"
    )


def test_fewer_real_images_than_asked_for_are_refused_with_both_numbers(moments):
    message = r"fewer real images than requested: 40 test images for samples: 50; .* reference: train \(60 images\)"
    with pytest.raises(UnavailableError, match=message):
        in_space(FrechetMetric, moments, samples=50).measure(Compared(60))
    found = in_space(FrechetMetric, moments, samples=50, reference="train").measure(Compared(60))
    assert found.n == 50
    assert found.how["against"] == "50 of 60 train images, drawn by the seed"
    assert found.how["real_against_real"].startswith("all 40 test images against 40 of the train images")


@pytest.mark.parametrize(("n_test", "n_train"), [(1, 4), (4, 1)])
def test_a_single_real_image_is_refused(moments, n_test, n_train):
    with pytest.raises(UnavailableError, match=f"{n_test} test and {n_train} train images are too few to compare"):
        in_space(FrechetMetric, moments).measure(Compared(n_test, n_test, n_train))


def test_features_that_are_not_finite_are_refused_with_their_number(tmp_path):
    given = Compared(8, 8, 8)
    bright = given.test.images(torch.arange(8))
    bright = bright // 2
    bright[:3] = 255
    given.test = InMemoryExamples(bright, torch.zeros(8, dtype=torch.long))
    with pytest.raises(UnavailableError, match=r"features of 3 of 8 images \(test\) are NaN or infinite"):
        in_space(FrechetMetric, saved(Broken(), tmp_path / "broken.pt")).measure(given)


def test_more_neighbours_than_images_are_refused(moments):
    with pytest.raises(UnavailableError, match="4 images have no neighbour number 4; set neighbours: 3 or fewer"):
        in_space(PrecisionMetric, moments, neighbours=4).measure(Compared(4, 4, 4))


def test_missing_packages_are_named_with_how_to_get_them(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch_fidelity" else real(name, *rest)
    )
    for metric in (*INCEPTION_METRICS, PrecisionMetric, RecallMetric):
        reason = "torch_fidelity not installed; pip install 'moeframe[quality]'"
        assert metric(metric.Config()).unavailable() == reason
        assert measure(metric(metric.Config()), Compared()) == {"unavailable": reason, "missing": True}


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"weights": "some.pt"}, "weights", "features 'efficientnet_lite0' take no weights; leave it out"),
        ({"verify": False}, "verify", "features 'efficientnet_lite0' take no verify; leave it out"),
        ({"features": "torchscript"}, "weights", "need weights: PATH"),
        ({"features": "module"}, "module", "need module: PACKAGE.MODULE:FUNCTION"),
        ({"module": "a:b"}, "module", "features 'efficientnet_lite0' take no module; leave it out"),
        ({"features": "dinov2", "input_size": 96}, "input_size", "features 'dinov2' take no input_size"),
    ],
)
def test_a_setting_that_the_space_does_not_take_is_an_error(settings, key, message):
    ((found, text),) = FrechetMetric.Config(**settings).conflicts(SpecFacts(n_experts=2))
    assert found == key
    assert message in text


def test_a_spec_with_such_a_setting_names_its_place(registry, tiny_text):
    import yaml

    data = yaml.safe_load(tiny_text) | {"metrics": [{"type": "frechet", "features": "torchscript"}]}
    with pytest.raises(UnlocatedProblemsError) as error:
        bind(data, registry)
    (problem,) = error.value.problems
    assert problem.path == ("metrics", 0, "weights")
    assert "need weights: PATH" in problem.message


def test_a_spec_chooses_among_all_spaces_there_are():
    assert get_args(SpaceName) == tuple(SPACES)
    assert all(name == space.KEY for name, space in SPACES.items())
