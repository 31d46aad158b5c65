"""Our measures of sample quality against closed forms and against the packages that define them, end to end.

    python benchmarks/agreement.py        # some minutes on two cores; writes results/evaluation/agreement.json

Networks have random weights, because published ones must be downloaded; the comparison covers the full path from image
to figure. Images are crops of the photographs of `photo_patches`; samples are the same crops with noise.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lpips
import numpy as np
import torch
import torch_fidelity
import torchvision
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.metric_kid import kid_features_to_metric

from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.metric import Metric
from moeframe.runs.environment import describe_environment
from moeframe_builtin.datasets.photo_patches import PhotoPatches
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric, subset_mmd
from moeframe_builtin.metrics.lpips import LpipsMetric
from moeframe_builtin.metrics.precision import PrecisionMetric
from moeframe_builtin.metrics.psnr import PsnrMetric
from moeframe_builtin.metrics.recall import RecallMetric
from moeframe_builtin.metrics.ssim import SsimMetric
from moeframe_builtin.metrics.support.frechet_distance import Gaussian, gaussian_distance

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/evaluation/agreement.json"
sys.path.insert(0, str(ROOT / "tests/support"))

from small_evaluation import GivenImages  # noqa: E402

N, SIZE, SPLITS = 32, 32, 2
SUBSET = N
"""Of KID: all images, since ours are in an order drawn by the seed and smaller subsets would be of others."""


class Photographs(GivenImages):
    """Real patches of both splits, and the test patches under noise as samples and as reconstructions."""

    def __init__(self) -> None:
        data = PhotoPatches(PhotoPatches.Config(size=SIZE))
        test, train = (data.split(name).images(torch.arange(N)) for name in ("test", "train"))
        noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(1))
        # Enough noise for a KID that float32 numbers near 1, whose difference torch-fidelity takes, hold to 1e-5.
        super().__init__(test, (test + 44 * noise).round().clamp(0, 255).long(), 256)
        self.train = InMemoryExamples(train, torch.zeros(N, dtype=torch.long))

    def sample_batches(self, n: int) -> Iterator[Tensor]:
        yield self.pairs[1][:n]  # so that a metric's own batch size is that of the network


class Pictures(torch.utils.data.Dataset[Tensor]):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: Tensor):
        self.images = images.to(torch.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def compared(ours: float, theirs: float, within: float) -> dict[str, Any]:
    """Both figures and their relative difference."""
    difference = abs(ours / theirs - 1)
    return {"ours": ours, "theirs": theirs, "relative": difference, "within": within, "met": difference <= within}


def closed_forms() -> dict[str, Any]:
    """‖μ1 - μ2‖² + Σ (σ1 - σ2)² of Gaussians whose covariances commute, in a turned basis."""
    found = {}
    for dims in (8, 64, 512):
        generator = torch.Generator().manual_seed(dims)
        turn, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator, dtype=torch.float64))
        scales = torch.rand(2, dims, generator=generator, dtype=torch.float64) + 0.1
        means = torch.randn(2, dims, generator=generator, dtype=torch.float64)
        one, two = (
            Gaussian.with_covariance(mean, turn * scale**2 @ turn.T) for mean, scale in zip(means, scales, strict=True)
        )
        closed = float((means[0] - means[1]).square().sum() + (scales[0] - scales[1]).square().sum())
        found[f"Fréchet distance, {dims} dims"] = compared(gaussian_distance(one, two), closed, 1e-8)
    return found


def random_inception(path: Path) -> None:
    """Inception with random weights whose variance survives its depth."""
    theirs = feature_extractor_inceptionv3

    class Untrained(theirs.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        def load_state_dict(self, state: Any) -> None:
            """Keep what it began with."""

    download, theirs.load_state_dict_from_url = theirs.load_state_dict_from_url, lambda *_, **__: {}
    state = Untrained("untrained", ["2048"]).state_dict()
    theirs.load_state_dict_from_url = download
    generator = torch.Generator().manual_seed(0)
    for name, values in state.items():
        if values.ndim > 1:
            gain = 4 if name == "fc.weight" else 1
            state[name] = gain * torch.randn(values.shape, generator=generator) * (2 / values[0].numel()) ** 0.5
    torch.save(state, path)


def against_torch_fidelity(given: Photographs, folder: Path) -> dict[str, Any]:
    """FID, KID, IS, precision and recall: our loader and extraction against torch-fidelity reading PNG files."""
    weights = folder / "inception.pth"
    random_inception(weights)
    samples = folder / "samples"
    samples.mkdir()
    for i, levels in enumerate(given.pairs[1]):
        Image.fromarray(levels.permute(1, 2, 0).to(torch.uint8).numpy()).save(samples / f"{i:03d}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(samples),
        input2=Pictures(given.pairs[0]),
        cuda=False,
        **dict.fromkeys(("fid", "kid", "isc", "prc"), True),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        kid_subset_size=SUBSET,
        isc_splits=SPLITS,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=16,
    )

    def ours(batch_size: int) -> dict[str, float]:
        own: dict[str, Any] = {"weights": weights, "verify": False, "batch_size": batch_size}
        given.kept.clear()  # what was extracted with other batches
        metrics: dict[str, Metric] = {
            "frechet_inception_distance": FidMetric(FidMetric.Config(**own, allow_small_n=True)),
            "kernel_inception_distance_mean": KidMetric(KidMetric.Config(**own, subset_size=SUBSET)),
            "inception_score_mean": InceptionScoreMetric(InceptionScoreMetric.Config(**own, splits=SPLITS)),
            "precision": PrecisionMetric(PrecisionMetric.Config(**own, features="inception")),
            "recall": RecallMetric(RecallMetric.Config(**own, features="inception")),
        }
        return {name: metric.measure(given).value for name, metric in metrics.items()}

    one, other = ours(7), ours(64)
    found = {name: compared(value, float(theirs[name]), 1e-5) for name, value in one.items()}
    found |= {f"{name}, batches of 7 and of 64": compared(one[name], other[name], 1e-5) for name in one}
    return found | kid_in_both_precisions()


def kid_in_both_precisions() -> dict[str, Any]:
    """torch-fidelity's own sum over the same features: in float32, as it takes them, and in float64, as ours does."""
    generator = torch.Generator().manual_seed(2)
    near, far = (shift + torch.randn(2 * N, 2048, generator=generator) for shift in (0.0, 0.5))
    found = {}
    for precision in (torch.float32, torch.float64):
        theirs = kid_features_to_metric(
            far.to(precision), near.to(precision), kid_subsets=1, kid_subset_size=2 * N, verbose=False
        )
        value, _ = subset_mmd(far, near, 2 * N)
        name = f"KID of given features, theirs in {str(precision).removeprefix('torch.')}"
        found[name] = compared(value, float(theirs["kernel_inception_distance_mean"]), 1e-5)
    return found


def against_scikit_image(given: Photographs) -> dict[str, Any]:
    """PSNR, and SSIM with Wang's settings."""
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(*given.pairs, strict=True)]
    psnr = np.mean([peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs])
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = np.mean(
        [
            structural_similarity(a.astype(float), b.astype(float), data_range=255, channel_axis=0, **wang)
            for a, b in pairs
        ]
    )
    return {
        "PSNR": compared(PsnrMetric(PsnrMetric.Config(images=N)).measure(given).value, float(psnr), 1e-9),
        "SSIM": compared(SsimMetric(SsimMetric.Config(images=N)).measure(given).value, float(ssim), 1e-9),
    }


def against_lpips(given: Photographs, folder: Path) -> dict[str, Any]:
    """LPIPS of the package with the same random backbone."""
    found = {}
    for net, builder in (("alex", "alexnet"), ("squeeze", "squeezenet1_1"), ("vgg", "vgg16")):
        torch.manual_seed(0)
        backbone = getattr(torchvision.models, builder)(weights=None)
        path = folder / f"{net}.pth"
        torch.save(backbone.state_dict(), path)
        original = getattr(torchvision.models, builder)
        setattr(torchvision.models, builder, lambda own=backbone, **_: SimpleNamespace(features=own.features))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = lpips.LPIPS(net=net, verbose=False)
        setattr(torchvision.models, builder, original)
        a, b = (images.float() / 127.5 - 1 for images in given.pairs)
        with torch.no_grad():
            theirs = float(package(a, b).mean())
        metric = LpipsMetric(LpipsMetric.Config(net=net, weights=path, curve=[], images=N))
        found[f"LPIPS, {net}, random backbone"] = compared(metric.measure(given).value, theirs, 1e-5)
    return found


def main() -> None:
    given = Photographs()
    report: dict[str, Any] = {
        "command": "python benchmarks/agreement.py",
        "environment": describe_environment("cpu"),
        "images": f"{N} patches of {SIZE}x{SIZE} pixels of each split; random weights in every network",
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        report["closed form"] = closed_forms()
        report["torch-fidelity"] = against_torch_fidelity(given, folder)
        report["scikit-image"] = against_scikit_image(given)
        report["lpips"] = against_lpips(given, folder)
    parts = [report[name] for name in ("closed form", "torch-fidelity", "scikit-image", "lpips")]
    checks = [check for part in parts for check in part.values()]
    report["met"], report["of"] = sum(check["met"] for check in checks), len(checks)
    OUT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if report["met"] < report["of"]:
        sys.exit("not all agree")


if __name__ == "__main__":
    main()
