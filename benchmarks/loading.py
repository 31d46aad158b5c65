"""Loading rate of each loader against torchvision's or a plain loop over the same files, and memory over size.

    python benchmarks/loading.py           # writes results/data/loading.json
    python benchmarks/loading.py memory    # measures only memory

- rate: images/s of one pass in random order, batches of 64, with 0, 1 and 2 worker processes; ours and theirs in turn,
  the same files, decoding, crop and resize; the start of the workers is part of the time
- memory: peak of the process's own (anonymous) memory while it reads all of 10,000, 20,000 and 40,000 images; pages of
  an LMDB file that the system maps in are its cache and not counted. The first few thousand images warm up the
  allocator's pools
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import datasets, transforms

from moeframe.data.loading import fetch_batches
from moeframe.interfaces.dataset import Dataset, in_batches
from moeframe.plugin.registry import Registry
from moeframe.runs.environment import describe_environment

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/data/loading.json"
sys.path.insert(0, str(ROOT / "tests/support"))

from official_celeba_hq import write_celeba_hq  # noqa: E402
from official_cifar10 import write_cifar10  # noqa: E402
from official_lsun import write_lsun  # noqa: E402

BATCH = 64
REPEATS = 3
WORKERS = (0, 1, 2)
SIZES = (10_000, 20_000, 40_000)


@dataclass(frozen=True)
class Contest:
    """Our loader and another one of the same images."""

    ours: Dataset
    theirs: TorchDataset[Any]
    what: str


class PlainLoop(TorchDataset[torch.Tensor]):
    """Opens, crops and resizes one file after the other with Pillow."""

    def __init__(self, paths: list[Path], transform: Callable[[Any], torch.Tensor]):
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as file:
            return self.transform(file.convert("RGB")), 0


def dataset(name: str, **settings: object) -> Dataset:
    """A component by name, as a spec would build it."""
    component = Registry.installed().get(Dataset, name)
    return component(component.Config(type=name, **settings))


def square(size: int) -> transforms.Compose:
    """torchvision's words for our decoding."""
    lanczos = transforms.InterpolationMode.LANCZOS
    return transforms.Compose([CentralSquare(), transforms.Resize(size, lanczos), transforms.PILToTensor()])


class CentralSquare:
    """Cuts the central square out of an image."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return transforms.functional.center_crop(image, [min(image.size)] * 2)


class UncheckedCifar10(datasets.CIFAR10):
    """torchvision's, without its checksums: these files hold other images."""

    def _check_integrity(self) -> bool:
        return True

    def _load_meta(self) -> None:
        self.classes = list("abcdefghij")


def crops(n: int, size: int) -> Iterable[Image.Image]:
    """Pieces of photographs, each at its own place."""
    from skimage import data

    photos = [Image.fromarray(photo) for photo in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())]
    draw = np.random.default_rng(1)
    for i in range(n):
        photo = photos[i % len(photos)]
        x, y = (int(draw.integers(0, extent - size)) for extent in photo.size)
        yield photo.crop((x, y, x + size, y + size))


def write_folder(root: Path, n_train: int, size: int) -> Path:
    """train/ and test/ of JPEG files."""
    for split, n in (("train", n_train), ("test", 4)):
        (root / split / "photo").mkdir(parents=True)
        for i, crop in enumerate(crops(n, size)):
            crop.save(root / split / "photo" / f"{i:06d}.jpg", quality=90)
    return root


def contests(root: Path) -> dict[str, Contest]:
    """One per loader that reads files."""
    cifar = write_cifar10(root / "cifar", n_per_batch=10_000)
    found: dict[str, Contest] = {
        "cifar10": Contest(
            dataset("cifar10", root=cifar, verify=False),
            UncheckedCifar10(str(cifar), train=True, transform=transforms.PILToTensor()),
            "50,000 images 32x32 in memory; torchvision's CIFAR10",
        )
    }
    debian = Path("/usr/share/datasets/fashion-mnist")
    if debian.is_dir():
        raw = root / "fashion" / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for path in debian.glob("*.gz"):
            subprocess.run(f"gunzip -c {path} > {raw / path.stem}", shell=True, check=True)
        found["fashion_mnist"] = Contest(
            dataset("fashion_mnist", root=root / "fashion"),
            datasets.FashionMNIST(str(root / "fashion"), train=True, transform=transforms.PILToTensor()),
            "60,000 images 28x28 in memory; torchvision's FashionMNIST",
        )
    folder = write_folder(root / "folder", 2_000, 256)
    found["image_folder"] = Contest(
        dataset("image_folder", root=folder, size=64),
        datasets.ImageFolder(str(folder / "train"), transform=square(64)),
        "2,000 JPEG files 256x256, resized to 64x64; torchvision's ImageFolder",
    )
    faces = write_celeba_hq(root / "faces", n=1_000, size=256)
    celeba = dataset("celeba_hq", root=faces, verify=False)
    names = celeba.split("train").names
    paths = [next(faces.rglob(Path(name).name)) for name in names]
    found["celeba_hq"] = Contest(
        celeba,
        PlainLoop(paths, square(256)),
        f"{len(names)} JPEG files 256x256; a plain loop with Pillow and torchvision's transforms",
    )
    churches = write_lsun(root / "lsun", n_train=1_000, n_val=8)
    found["lsun_church"] = Contest(
        dataset("lsun_church", root=churches, verify=False),
        # a copy: LMDB lets a process open a file only once
        datasets.LSUN(
            str(shutil.copytree(churches, root / "lsun-too")), classes=["church_outdoor_train"], transform=square(256)
        ),
        "1,000 webp images, shorter side 256, in an LMDB; torchvision's LSUN",
    )
    return found


def rates(contest: Contest, workers: int) -> dict[str, Any]:
    """Images per second of both, in turn, and the median of the paired ratios."""
    train = contest.ours.split("train")
    n = len(train) // BATCH * BATCH
    plan = [torch.randperm(len(train))[:n].split(BATCH) for _ in range(REPEATS)]

    def ours(indices: tuple[torch.Tensor, ...]) -> None:
        for batch in fetch_batches(train, indices, workers):
            assert len(batch.images) == BATCH

    def theirs(indices: tuple[torch.Tensor, ...]) -> None:
        batches = [batch.tolist() for batch in indices]
        for images, _ in DataLoader(contest.theirs, batch_sampler=batches, num_workers=workers):
            assert len(images) == BATCH

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for indices in plan:
        for name, job in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            job(indices)
            seconds[name].append(time.perf_counter() - start)
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return {
        "ours_images_per_s": round(n / statistics.median(seconds["ours"])),
        "theirs_images_per_s": round(n / statistics.median(seconds["theirs"])),
        "ours_over_theirs": [round(ratio, 2) for ratio in sorted(ratios)],
    }


def anonymous_mib() -> float:
    """Anonymous memory of this process, bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def read_through(name: str, root: str) -> None:
    """In a process of its own: read every training image once and print the peak."""
    train = dataset(name, root=Path(root), **({"size": 64} | ({"verify": False} if name == "lsun_church" else {})))
    before = anonymous_mib()
    peak = before
    for _ in in_batches(train.split("train"), BATCH):
        peak = max(peak, anonymous_mib())
    print(json.dumps({"before_mib": round(before), "peak_mib": round(peak)}))


def memory(root: Path) -> dict[str, Any]:
    """Peak memory of reading a folder and an LMDB of several sizes."""
    found: dict[str, Any] = {}
    for n in SIZES:
        places = {
            "image_folder": write_folder(root / f"folder-{n}", n, 64),
            "lsun_church": write_lsun(root / f"lsun-{n}", n_train=n, n_val=4),
        }
        for name, place in places.items():
            command = [sys.executable, __file__, "read-through", name, str(place)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.setdefault(name, {})[f"{n}_images"] = json.loads(printed.splitlines()[-1])
    return found


def memory_anew() -> None:
    """The part on memory alone."""
    found = json.loads(OUT.read_text())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found["memory"] = memory(Path(folder))
    found["memory"]["command"] = "python benchmarks/loading.py memory"
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(found["memory"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.chdir(root)  # torchvision's LSUN drops a cache file into the working folder
        found: dict[str, Any] = {"command": "python benchmarks/loading.py", "environment": describe_environment("cpu")}
        found["rate"] = {}
        for name, contest in contests(root).items():
            found["rate"][name] = {"what": contest.what}
            for workers in WORKERS:
                result = rates(contest, workers)
                found["rate"][name][f"{workers}_workers"] = result
                print(name, workers, result, flush=True)
        found["memory"] = memory(root)
        print(found["memory"])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["read-through"]:
        read_through(*sys.argv[2:])
    elif sys.argv[1:2] == ["memory"]:
        memory_anew()
    else:
        main()
