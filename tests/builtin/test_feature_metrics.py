"""Metrics in feature spaces: against torch-fidelity end to end, what they state, and what they refuse."""

import hashlib
import importlib.util
import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from small_evaluation import GivenImages, evaluation_of

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import measure
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.metric import Measurement, Metric
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe.spec.messages import FlawsError
from moeframe_builtin.features.catalogue import SPACES, SpaceName
from moeframe_builtin.features.efficientnet import PACKAGES
from moeframe_builtin.features.inception import WEIGHTS_NAME, Inception
from moeframe_builtin.features.space import Extracted, SpaceSettings, to_rgb, why_missing
from moeframe_builtin.metrics import frechet as frechet_module
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric
from moeframe_builtin.metrics.precision_recall import PrecisionMetric, RecallMetric
from moeframe_builtin.metrics.support.feature_source import FeatureSource
from moeframe_builtin.metrics.support.frechet_distance import frechet_distance

INCEPTION_METRICS = (FidMetric, KidMetric, InceptionScoreMetric)
CPU = torch.device("cpu")


def blobs(n: int, name: str, *, channels: int = 3, size: int = 12, levels: int = 256) -> torch.Tensor:
    """Smooth random images, so that a network has something to tell apart."""
    coarse = Streams(0).uniform((n, channels, 3, 3), name)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (smooth * (levels - 0.001)).long()


class Compared(GivenImages):
    """Samples, test and train images, all made up."""

    def __init__(self, n_samples: int = 40, n_test: int = 40, n_train: int = 60, *, levels: int = 256, **shape: int):
        test, samples, train = (
            blobs(n, name, levels=levels, **shape)
            for n, name in ((n_test, "test"), (n_samples, "samples"), (n_train, "train"))
        )
        super().__init__(test, samples * 3 // 4, levels)
        self.train = InMemoryExamples(train, torch.zeros(n_train, dtype=torch.long))


class Moments(torch.nn.Module):
    """Means and squared means of the four quarters of each channel: 24 features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = torch.nn.functional.adaptive_avg_pool2d(images, [2, 2]).flatten(1)
        return torch.cat([quarters, quarters * quarters], dim=1)


class Broken(torch.nn.Module):
    """NaN for a bright image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean(dim=[2, 3])
        return torch.where(means > 0.7, torch.full_like(means, float("nan")), means)


class Flat(torch.nn.Module):
    """One number for the whole batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean()


class Narrow(torch.nn.Module):
    """Takes another number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(5, 2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images).mean(dim=[2, 3])


def saved(module: torch.nn.Module, path: Path) -> Path:
    """The module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def moments(tmp_path_factory) -> Path:
    return saved(Moments(), tmp_path_factory.mktemp("modules") / "moments.pt")


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """Inception with random weights whose variance survives its depth."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    class Untrained(theirs.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *rest, **more: {})
        state = Untrained("untrained", ["2048"]).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, values in state.items():
        if values.ndim > 1:
            gain = 4 if name == "fc.weight" else 1
            state[name] = gain * torch.randn(values.shape, generator=generator) * (2 / values[0].numel()) ** 0.5
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Any attempt to reach the network fails the test; torch.hub's cache is empty."""
    import socket
    import urllib.request

    def fail(*rest: Any, **more: Any) -> None:
        raise AssertionError(f"the network was asked for {rest}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for owner, name in (
        (urllib.request, "urlopen"),
        (torch.hub, "download_url_to_file"),
        (torch.hub, "load_state_dict_from_url"),
        (socket.socket, "connect"),
        (socket, "create_connection"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(owner, name, fail)


def in_space(metric: type[Metric], path: Path, **settings: Any) -> Metric:
    return metric(metric.Config(features="torchscript", weights=path, **settings))


# against torch-fidelity


class Tensors(torch.utils.data.Dataset):
    """Images as torch-fidelity wants them."""

    def __init__(self, images: torch.Tensor):
        self.images = images.to(torch.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


@pytest.mark.slow
def test_inception_figures_are_torch_fidelitys_on_the_same_images(inception_weights, tmp_path):
    """Samples as a folder of PNGs and real images as a data set; random weights given to both by path."""
    import torch_fidelity

    given = Compared(12, 12, 12)
    for i, levels in enumerate(given.pairs[1]):
        Image.fromarray(levels.permute(1, 2, 0).to(torch.uint8).numpy()).save(tmp_path / f"{i:02d}.png")
    own = {"weights": inception_weights, "verify": False, "batch_size": 5}
    metrics = {
        "frechet_inception_distance": FidMetric(FidMetric.Config(**own, allow_small_n=True)),
        "kernel_inception_distance_mean": KidMetric(KidMetric.Config(**own, subset_size=12)),
        "inception_score_mean": InceptionScoreMetric(InceptionScoreMetric.Config(**own, splits=3)),
        "precision": PrecisionMetric(PrecisionMetric.Config(**own, features="inception")),
        "recall": RecallMetric(RecallMetric.Config(**own, features="inception")),
    }
    found = {name: metric.measure(given) for name, metric in metrics.items()}
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path),
        input2=Tensors(given.pairs[0]),
        cuda=False,
        **dict.fromkeys(("fid", "kid", "isc", "prc"), True),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_weights),
        kid_subset_size=12,
        isc_splits=3,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=4,
    )
    tolerance = {
        # torch-fidelity's is a difference of float32 numbers near 1
        "kernel_inception_distance_mean": {"rel": 1e-5, "abs": 2e-7},
        "inception_score_mean": {"abs": 1e-7},  # of a random network it is hardly above 1
    }
    for name, measurement in found.items():
        assert measurement.value == pytest.approx(theirs[name], **tolerance.get(name, {"rel": 1e-5})), name
    assert 0 < found["precision"].value < 1
    assert found["inception_score_mean"].value > 1.0003
    fid = found["frechet_inception_distance"]
    assert "NOT the published weights" in fid.how["feature_space"]
    assert fid.how["weights_sha256"] == hashlib.sha256(inception_weights.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_file_of_another_network_is_refused_with_its_hash(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 3).state_dict(), path)
    metric = FidMetric(FidMetric.Config(weights=path, verify=False, allow_small_n=True))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UnavailableError, match=f"SHA-256 {digest}. do not load as torch-fidelity's Inception v3"):
        metric.measure(Compared(4, 4, 4))


# weights


@pytest.mark.parametrize("metric", INCEPTION_METRICS)
def test_inception_metrics_without_weights_say_so_at_once_and_ask_no_network(no_network, metric):
    found = measure(metric(metric.Config()), Compared())
    assert WEIGHTS_NAME in found["unavailable"]
    assert "no weights at" in found["unavailable"]
    assert "weights: PATH" in found["unavailable"]
    assert "moeframe downloads nothing" in found["unavailable"]


def test_inception_weights_that_torch_hub_already_keeps_are_used(no_network):
    settings = SpaceSettings()
    kept = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    assert Inception.unavailable(settings)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"not really")
    assert Inception.unavailable(settings) is None
    with pytest.raises(UnavailableError, match="should begin with 6726825d"):
        _ = Inception(settings, CPU).weights_sha256


def test_weights_other_than_the_published_are_refused_with_both_hashes(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UnavailableError) as error:
        FidMetric(FidMetric.Config(weights=path, allow_small_n=True)).measure(Compared(4, 4, 4))
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)
    assert f"not those of {WEIGHTS_NAME}" in str(error.value)
    assert "verify: false" in str(error.value)


def test_a_file_that_is_no_weights_is_refused_with_its_hash(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UnavailableError, match="do not load as torch-fidelity's Inception v3"):
        FidMetric(FidMetric.Config(weights=path, verify=False, allow_small_n=True)).measure(Compared(4, 4, 4))


def test_dinov2_without_its_code_or_weights_says_what_to_get(no_network):
    metric = FrechetMetric(FrechetMetric.Config(features="dinov2"))
    assert "clone https://github.com/facebookresearch/dinov2 there" in metric.unavailable()
    code = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
    code.mkdir(parents=True)
    (code / "hubconf.py").write_text("")
    assert "get dinov2_vitl14_pretrain.pth" in metric.unavailable()


def test_dinov2_is_built_from_the_local_code_and_weights(no_network, tmp_path):
    """A stand-in of three features has the shape of the real one: nothing here holds its weights."""
    code = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
    code.mkdir(parents=True)
    (code / "hubconf.py").write_text(
        "import torch\n"
        "def dinov2_vitl14(pretrained=True):\n"
        "    assert not pretrained\n"
        "    return torch.nn.Sequential(torch.nn.AvgPool2d(224), torch.nn.Flatten(), torch.nn.Linear(3, 3))\n"
    )
    weights = tmp_path / "weights.pth"
    torch.save({"2.weight": torch.eye(3), "2.bias": torch.ones(3)}, weights)
    metric = FrechetMetric(FrechetMetric.Config(features="dinov2", weights=weights))
    assert metric.unavailable() is None
    given = Compared(8, 8, 8)
    found = metric.measure(given)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found.unit == f"Fréchet distance, DINOv2 ViT-L/14 ({digest[:8]}) features"
    white = SPACES["dinov2"](SpaceSettings(weights), CPU).extract(torch.full((1, 3, 9, 9), 255, dtype=torch.uint8))
    assert white.features[0].tolist() == pytest.approx(
        [1 + 0.515 / 0.229, 1 + 0.544 / 0.224, 1 + 0.594 / 0.225], rel=1e-3
    )


# a space of the user's own


def test_a_torchscript_space_goes_by_its_file_and_hash(moments):
    found = in_space(FrechetMetric, moments).measure(Compared())
    digest = hashlib.sha256(moments.read_bytes()).hexdigest()
    assert found.unit == f"Fréchet distance, moments ({digest[:8]}) features"
    assert found.how["weights_sha256"] == digest
    given = Compared()
    by_hand = [Moments()(images.float() / 255) for images in given.pairs]
    assert found.value == pytest.approx(frechet_distance(by_hand[1], by_hand[0]), rel=1e-6)


def test_weights_below_the_home_folder_are_found(moments, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(moments, tmp_path / "own.pt")
    assert in_space(FrechetMetric, Path("~/own.pt")).unavailable() is None
    assert "no weights at ~/other.pt" in in_space(FrechetMetric, Path("~/other.pt")).unavailable()


@pytest.mark.parametrize(("features", "caution"), [("inception", ""), ("efficientnet_lite0", "not an FID; ")])
def test_a_distance_in_inceptions_features_is_not_said_to_be_no_fid(monkeypatch, features, caution):
    def cautioned(*arguments: Any) -> Measurement:
        return Measurement(value=0.0, unit="", better="lower", n=2, how={"caution": arguments[-1]})

    monkeypatch.setattr(frechet_module, "measure_frechet", cautioned)
    assert FrechetMetric(FrechetMetric.Config(features=features)).measure(Compared()).how["caution"] == caution


def test_intervals_in_more_features_than_were_simulated_say_so(monkeypatch):
    rows = [torch.randn(400, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    assert "simulations" not in frechet_module._with_interval(*rows)[2]
    monkeypatch.setattr(frechet_module, "SIMULATED_TO", 3)
    assert frechet_module._with_interval(*rows)[2].endswith("; simulations that show its coverage end at 3 features")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Flat(), r"flat.pt returns \(\) for 1 images; it is given RGB .* in \[0, 1\].* returns \(n, features\)"),
        (Narrow(), r"flat.pt fails on images: .*5 channels.*; it is given RGB"),
    ],
)
def test_a_torchscript_space_of_another_shape_is_refused_with_what_it_is_given(tmp_path, module, message):
    with pytest.raises(UnavailableError, match=message):
        in_space(FrechetMetric, saved(module, tmp_path / "flat.pt")).measure(Compared(4, 4, 4))


def test_a_file_that_is_no_torchscript_is_refused_with_its_hash(tmp_path):
    path = tmp_path / "text.pt"
    path.write_text("no module")
    with pytest.raises(UnavailableError, match="SHA-256 .* do not load as a TorchScript module"):
        in_space(FrechetMetric, path).measure(Compared(4, 4, 4))


def in_module(module: str, **settings: Any) -> Metric:
    return FrechetMetric(FrechetMetric.Config(features="module", module=module, **settings))


def test_a_space_of_a_python_module_gives_what_its_torchscript_gives(moments, monkeypatch):
    places = types.ModuleType("places")
    places.build, places.flat = Moments, Flat
    monkeypatch.setitem(sys.modules, "places", places)
    found = in_module("places:build").measure(Compared())
    assert found.value == pytest.approx(in_space(FrechetMetric, moments).measure(Compared()).value, rel=1e-6)
    digest = found.how["weights_sha256"]
    assert found.unit == f"Fréchet distance, places:build ({digest[:8]}) features"
    with pytest.raises(UnavailableError, match=r"built by places:flat returns \(\) for 1 images; it is given RGB"):
        in_module("places:flat").measure(Compared(4, 4, 4))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("places", "module: 'places' is no PACKAGE.MODULE:FUNCTION"),
        ("no_such_package:build", "module: 'no_such_package' cannot be imported (No module named 'no_such_package')"),
        ("math:none", "module: 'math' has no function 'none'"),
    ],
)
def test_a_function_that_is_not_there_is_named(module, message):
    assert in_module(module).unavailable().startswith(message)


def test_a_function_that_gives_no_module_is_refused():
    with pytest.raises(UnavailableError, match="os:getcwd: returns str, not a torch module; it is given RGB"):
        in_module("os:getcwd").measure(Compared(4, 4, 4))
    with pytest.raises(UnavailableError, match="math:sqrt: fails with TypeError: "):
        in_module("math:sqrt").measure(Compared(4, 4, 4))


def test_a_torchscript_space_without_a_file_is_not_available(tmp_path):
    assert "need weights: PATH" in FrechetMetric(FrechetMetric.Config(features="torchscript")).unavailable()
    assert "torch.jit.save" in in_space(FrechetMetric, tmp_path / "none.pt").unavailable()


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


# what is refused


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
    message = r"fewer real images than asked for: 40 test images for samples: 50; .* reference: train \(60 images\)"
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
    with pytest.raises(FlawsError) as error:
        bind(data, registry)
    (flaw,) = error.value.flaws
    assert flaw.path == ("metrics", 0, "weights")
    assert "need weights: PATH" in flaw.message


def test_a_spec_chooses_among_all_spaces_there_are():
    assert get_args(SpaceName) == tuple(SPACES)
    assert all(name == space.KEY for name, space in SPACES.items())


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
        "fewer real images than asked for: 40 test images for reference_images: 41; set reference_images: 40 or fewer"
    )
    with pytest.raises(UnavailableError, match=message):
        in_space(FrechetMetric, moments, samples=50, reference_images=41).measure(given)


@pytest.mark.parametrize("component", [FrechetMetric, KidMetric, PrecisionMetric, RecallMetric])
def test_the_floor_of_fewer_images_has_the_samples_figure_at_that_number_beside_it(component, moments):
    few = in_space(component, moments, samples=30, reference="train").measure(Compared(60, 30, 60))
    found = in_space(component, moments, samples=60, reference="train").measure(Compared(60, 30, 60))
    assert "at_floor_n" not in few.parts
    assert found.how["at_floor_n"].startswith("the same figure of 30 samples")
    assert found.parts["at_floor_n"] == pytest.approx(few.value)
    assert found.parts["real_against_real"] == pytest.approx(few.parts["real_against_real"])


def test_a_floor_of_fewer_images_than_features_is_no_floor(moments):
    found = in_space(FrechetMetric, moments, samples=40, reference="train").measure(Compared(40, 20, 60))
    assert "real_against_real" not in found.parts
    assert found.how["real_against_real"] == "none: 20 real images on a side are fewer than 24 features"
    assert "floor" not in found.how["caution"]
