"""Feature spaces: the published networks and their weights, and spaces of the user's own."""

import hashlib
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_features import CPU, INCEPTION_METRICS, Compared, Moments, in_space, saved
from PIL import Image

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import measure
from moeframe.interfaces.metric import Measurement, Metric
from moeframe_builtin.features.catalogue import SPACES
from moeframe_builtin.features.inception import WEIGHTS_NAME, Inception
from moeframe_builtin.features.space import SpaceSettings
from moeframe_builtin.metrics import frechet as frechet_module
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric
from moeframe_builtin.metrics.precision import PrecisionMetric
from moeframe_builtin.metrics.recall import RecallMetric
from moeframe_builtin.metrics.support.frechet_distance import frechet_distance


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
        ("places", "module: 'places' is not of the form PACKAGE.MODULE:FUNCTION"),
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
