"""LPIPS and diversity against the package `lpips`, end to end, with RANDOM backbones: no figure here is an LPIPS."""

import hashlib
import importlib.util
import math
import re
import socket
import warnings
from pathlib import Path
from types import SimpleNamespace

import lpips
import pytest
import torch
import torchvision
from small_evaluation import GivenImages, evaluation_of, given_images

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import measure
from moeframe.randomness import Streams
from moeframe_builtin.metrics.diversity import DiversityMetric
from moeframe_builtin.metrics.lpips import LpipsMetric
from moeframe_builtin.metrics.support.lpips_network import BACKBONES, Backbone

TORCHVISION = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}


@pytest.fixture(scope="module")
def random_features():
    """net -> convolutions of a backbone with random weights, made once."""
    made = {}

    def features(net):
        if net not in made:
            with torch.device("meta"):
                classifier = getattr(torchvision.models, TORCHVISION[net])(weights=None)
            made[net] = classifier.features.to_empty(device="cpu").eval()
            for name, weight in made[net].named_parameters():
                drawn = Streams(0).normal(weight.shape, "random backbone", name)
                weight.data.copy_(drawn * math.sqrt(2 / weight[0].numel()) if weight.dim() > 1 else 0.1 * drawn)
        return made[net]

    return features


@pytest.fixture(scope="module")
def random_file(random_features, tmp_path_factory):
    """net -> a file of the random backbone in torchvision's names."""
    folder = tmp_path_factory.mktemp("random_backbones")

    def file(net):
        path = folder / f"random_{net}.pth"
        if not path.exists():
            state = random_features(net).state_dict()
            torch.save({f"features.{name}": weight for name, weight in state.items()}, path)
        return path

    return file


@pytest.fixture
def package(random_features, monkeypatch):
    """net -> the package's own LPIPS, whose torchvision hands it the random backbone."""

    def build(net):
        stand_in = SimpleNamespace(features=random_features(net))
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(torchvision.models, TORCHVISION[net], lambda pretrained: stand_in)
            return lpips.LPIPS(net=net, verbose=False)

    return build


def directly(network, pairs, low: float = -1.0, high: float = 1.0) -> list[float]:
    """The package's distances of pairs of images in levels 0 .. 255, scaled to low .. high."""
    found = []
    for pair in zip(*pairs, strict=True):
        one, two = (low + (high - low) * image[None].double() / 255 for image in pair)
        with torch.no_grad():
            found.append(float(network(*(image.float().repeat(1, 3 // image.shape[1], 1, 1) for image in (one, two)))))
    return found


def metric_of(net: str, path: Path, **settings) -> LpipsMetric:
    return LpipsMetric(LpipsMetric.Config(net=net, weights=path, curve=[], **settings))


# against the package


@pytest.mark.parametrize(("net", "shape"), [("alex", (3, 33, 40)), ("squeeze", (1, 28, 28)), ("vgg", (3, 16, 20))])
def test_lpips_is_the_mean_of_the_packages_own(net, shape, random_file, package):
    given = given_images(shape=shape)
    expected = directly(package(net), given.pairs)
    found = metric_of(net, random_file(net), batch_size=3).measure(given)
    assert found.value == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert found.better == "lower"


def test_images_from_0_to_1_would_give_another_figure(random_file, package):
    given = given_images(shape=(3, 33, 40))
    wrong = directly(package("alex"), given.pairs, low=0.0)
    found = metric_of("alex", random_file("alex")).measure(given)
    assert abs(found.value / (sum(wrong) / 4) - 1) > 0.01


def test_lpips_equals_the_package_that_loads_a_random_backbone_through_torchvision_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / BACKBONES["squeeze"].file
    path.parent.mkdir(parents=True)
    with Streams(0).governing_torch("random squeezenet"):
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net="squeeze", verbose=False)
    given = given_images(shape=(3, 32, 32))
    found = metric_of("squeeze", path).measure(given)
    assert found.value == pytest.approx(sum(directly(package, given.pairs)) / 4, rel=1e-5)


def test_equal_images_are_at_distance_zero(random_file):
    given = given_images(shape=(3, 33, 40))
    assert metric_of("alex", random_file("alex")).measure(GivenImages(given.pairs[0], given.pairs[0], 256)).value == 0


def test_loading_a_network_draws_nothing_from_torchs_generator(random_file):
    before = torch.get_rng_state()
    metric_of("squeeze", random_file("squeeze")).measure(given_images(shape=(3, 32, 32)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_lpips_has_a_curve_over_noise_level(registry, tmp_path, random_file):
    dataset = {"type": "gaussian", "size": 18, "n_train": 8, "n_test": 4}
    model = evaluation_of(registry, tmp_path, dataset=dataset)
    settings = {"net": "squeeze", "weights": random_file("squeeze")}
    found = LpipsMetric(LpipsMetric.Config(**settings, curve=[-4.0, 4.0])).measure(model)
    alone = LpipsMetric(LpipsMetric.Config(**settings, curve=[], log_snr=4.0)).measure(model)
    assert found.parts["log_snr 4"] == alone.value
    assert found.parts["log_snr -4"] > found.parts["log_snr 4"]


# what it is called


def test_figures_of_unpublished_weights_are_not_called_lpips(random_file):
    path = random_file("squeeze")
    found = metric_of("squeeze", path).measure(given_images(shape=(3, 32, 32)))
    assert found.unit == "LPIPS with unpublished weights"
    assert found.how["backbone_weights"].startswith("backbone weights are not the published ones")
    assert found.how["backbone_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    linear = Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth"
    assert found.how["linear_sha256"] == hashlib.sha256(linear.read_bytes()).hexdigest()


def test_only_a_file_with_the_published_hash_is_called_lpips(random_file, monkeypatch):
    path = random_file("squeeze")
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(BACKBONES, "squeeze", Backbone("SqueezeNet 1.1", f"squeezenet1_1-{prefix}.pth", 17))
    found = metric_of("squeeze", path).measure(given_images(shape=(3, 32, 32)))
    assert found.unit == "LPIPS"
    assert found.how["backbone_weights"] == f"the published squeezenet1_1-{prefix}.pth"


def test_the_published_files_are_those_of_torchvision():
    published = {
        "alex": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
        "squeeze": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        "vgg": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    }
    assert {net: Path(each.url).name for net, each in published.items()} == {n: b.file for n, b in BACKBONES.items()}
    assert all(len(backbone.hash_prefix) == 8 for backbone in BACKBONES.values())


# what it refuses


@pytest.mark.parametrize(
    ("net", "shape", "text"),
    [
        ("alex", (3, 16, 16), "net alex takes images of at least 31 pixels a side, and these have 16; set net to vgg"),
        ("alex", (1, 28, 28), "of at least 31 pixels a side, and these have 28; set net to squeeze (17) or vgg (16)"),
        ("squeeze", (3, 40, 16), "at least 17 pixels a side, and these have 16; set net to vgg (16)"),
        ("vgg", (3, 15, 15), "and these have 15; no LPIPS network takes them: leave the metric out"),
        ("vgg", (2, 32, 32), "LPIPS takes grey or RGB images, not 2 channels"),
    ],
)
@pytest.mark.parametrize("metric", [LpipsMetric, DiversityMetric])
def test_images_that_the_backbone_cannot_take_are_refused(metric, net, shape, text, random_file):
    with pytest.raises(UnavailableError, match=re.escape(text)):
        metric(metric.Config(net=net, weights=random_file("squeeze"))).measure(given_images(shape=shape))


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_the_stated_smallest_size_is_the_smallest_that_the_package_takes(net, package, random_file):
    smallest = BACKBONES[net].smallest
    given = given_images(2, (3, smallest, smallest))
    assert math.isfinite(metric_of(net, random_file(net)).measure(given).value)
    with pytest.raises(RuntimeError):
        directly(package(net), given_images(2, (3, smallest - 1, 64)).pairs)


def test_weights_of_another_network_are_refused_with_their_hash(random_file):
    path = random_file("squeeze")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    text = f"{path} (SHA-256 {digest}) does not hold the weights of AlexNet: features.0.weight is missing or of another"
    found = measure(metric_of("alex", path), given_images(shape=(3, 33, 40)))
    assert found["unavailable"].startswith(text)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_a_file_that_holds_no_weights_is_refused_with_its_hash(content, tmp_path):
    path = tmp_path / "alexnet.pth"
    path.write_bytes(content)
    text = f"{path} (SHA-256 {hashlib.sha256(content).hexdigest()}) is not a file of weights"
    with pytest.raises(UnavailableError, match=re.escape(text)):
        metric_of("alex", path).measure(given_images(shape=(3, 33, 40)))


def test_a_damaged_download_is_refused_with_its_hash(tmp_path, monkeypatch, random_file):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / BACKBONES["squeeze"].file
    path.parent.mkdir(parents=True)
    path.write_bytes(random_file("squeeze").read_bytes())
    metric = LpipsMetric(LpipsMetric.Config(net="squeeze", curve=[]))
    assert metric.unavailable() is None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UnavailableError, match=f"has SHA-256 {digest}, which does not begin with b8a52dc0"):
        metric.measure(given_images(shape=(3, 32, 32)))


# offline


@pytest.mark.parametrize("metric", [LpipsMetric, DiversityMetric])
def test_without_weights_it_says_within_a_second_which_file_goes_where_and_asks_no_network(
    metric, tmp_path, monkeypatch
):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = measure(metric(metric.Config()), given_images(shape=(3, 33, 40)))
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert found["unavailable"] == (
        f"LPIPS needs the AlexNet weights alexnet-owt-7be5be79.pth, which are not at {path}; download "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth, put it there or set `weights` to where it is "
        "(nothing is downloaded for you)"
    )


def test_a_weights_path_that_is_no_file_is_named(tmp_path):
    metric = metric_of("vgg", tmp_path / "nothing.pth")
    assert metric.unavailable().startswith(f"weights: {tmp_path / 'nothing.pth'} is not a file; give vgg16-397923af")


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "lpips" else real(name, *rest))
    assert LpipsMetric(LpipsMetric.Config()).unavailable() == "lpips not installed; pip install 'moeframe[quality]'"


# diversity


def diversity_of(images: torch.Tensor, test: torch.Tensor, path: Path, pairs: int):
    config = DiversityMetric.Config(net="squeeze", weights=path, pairs=pairs)
    return DiversityMetric(config).measure(GivenImages(test, images, 256))


def test_diversity_is_the_mean_of_the_packages_own_over_disjoint_pairs(random_file, package):
    images, test = given_images(10, (3, 20, 24)).pairs
    found = diversity_of(images, test, random_file("squeeze"), 4)
    network = package("squeeze")
    assert found.value == pytest.approx(sum(directly(network, (images[0:8:2], images[1:8:2]))) / 4, rel=1e-5)
    order = Streams(0).permutation(10, "diversity/pairs")[:8]
    real = directly(network, (test[order[0::2]], test[order[1::2]]))
    assert found.parts["real_pairs"] == pytest.approx(sum(real) / 4, rel=1e-5)
    assert (found.n, found.better) == (4, "higher")


def test_equal_samples_have_no_diversity_and_different_ones_have(random_file):
    test = given_images(8, (3, 20, 20)).pairs[0]
    assert diversity_of(test[:1].repeat(8, 1, 1, 1), test, random_file("squeeze"), 4).value == 0
    assert diversity_of(test, test, random_file("squeeze"), 4).value > 0


def test_samples_of_two_images_are_less_diverse_than_all_different_ones(random_file):
    test = given_images(64, (3, 20, 20)).pairs[0]
    chosen = (Streams(0).uniform((64,), "chosen") > 0.5).long()
    few = diversity_of(test[chosen], test, random_file("squeeze"), 32)
    many = diversity_of(test, test, random_file("squeeze"), 32)
    assert few.value < many.value
    assert many.interval[0] < many.value < many.interval[1]


def test_diversity_compares_with_as_many_test_pairs_as_there_are_and_says_how_many(random_file):
    images = given_images(12, (3, 20, 20)).pairs[0]
    found = diversity_of(images, images[:5], random_file("squeeze"), 6)
    assert found.how["real_pairs"].startswith("the same between 2 random disjoint pairs of test images")
    assert found.n == 6


def test_diversity_draws_two_samples_a_pair(registry, tmp_path, random_file):
    dataset = {"type": "gaussian", "size": 18, "n_train": 8, "n_test": 6}
    model = evaluation_of(registry, tmp_path, dataset=dataset)
    metric = DiversityMetric(DiversityMetric.Config(net="squeeze", weights=random_file("squeeze"), pairs=3))
    found = metric.measure(model)
    assert found == metric.measure(model)
    assert math.isfinite(found.value)
    assert found.unit == "LPIPS with unpublished weights"
