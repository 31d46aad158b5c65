"""Every installed component keeps its kind's contract, and a component that breaks one is caught."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from official_celeba_hq import write_celeba_hq
from official_cifar10 import write_cifar10
from official_edm import write_edm
from official_lsun import write_lsun
from official_vdm import write_vdm
from PIL import Image
from small_diffusers import small_network, write_flat

from moeframe.assembly import assemble
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.slicer import Slicer
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.registry import Registry
from moeframe.runs.loaded import load
from moeframe.runs.pipeline import run
from moeframe.spec.binding import bind
from moeframe.testing import GaussianExpert, PlainTrunk, PosteriorGate, check_component
from moeframe_pretrained.moeframe_runs.expert_folder import save_expert

SLOW = {"frechet", "precision", "recall"}  # load their feature network
INSTALLED = [
    pytest.param(
        provided.component,
        id=f"{kind}/{provided.component.name()}",
        marks=[pytest.mark.slow] * (provided.component.name() in SLOW),
    )
    for kind in KINDS
    for provided in Registry.installed().components(kind)
]


@pytest.fixture(scope="module")
def evaluation(registry, tmp_path_factory) -> ModelEvaluation:
    """Two untrained experts and a gate on 8x8 Gaussian images."""
    data = {
        "name": "contracts",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 8, "levels": 16, "n_train": 12, "n_test": 12},
        "slicer": {"type": "color_variance"},
        "schedule": {"type": "linear"},
        "experts": [{"type": "unet", "copies": 2, "channels": 4}],
        "gate": {"type": "softmax", "width": 4},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 3},
    }
    assembly = assemble(bind(data, registry), registry, seed=0)
    return ModelEvaluation(assembly, assembly.model, tmp_path_factory.mktemp("evaluation"))


def tiny_fashion_mnist(folder: Path) -> Path:
    """Fashion-MNIST's idx files with two images each."""
    folder.mkdir()
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(i % 256 for i in range(2 * 28 * 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2) + bytes((0, 9)))
    return folder


@dataclass(frozen=True)
class Loaded:
    """Settings of an expert that loads a checkpoint, and the images that the checkpoint is made for."""

    settings: dict[str, Any]
    image: ImageShape


@pytest.fixture
def loaded(tmp_path, tiny_spec) -> dict[str, Callable[[], Loaded]]:
    """Writers of a small checkpoint of each family, by the expert's name."""
    colour, grey = ImageShape(3, 8, 8, 256), ImageShape(1, 4, 4, 8)
    # mild: at the ends of DDPM's own chain 1/α or 1/σ times float32's rounding passes the contract's tolerance
    mild = {"beta_start": 0.01, "beta_end": 0.01, "num_train_timesteps": 200}

    def run_folder() -> Path:
        run(tiny_spec, out=tmp_path / "run", overrides=["training.steps=1"])
        return tmp_path / "run"

    return {
        "checkpoint": lambda: Loaded({"path": save_expert(load(run_folder()).experts[0], tmp_path / "expert")}, grey),
        "diffusers": lambda: Loaded({"path": write_flat(tmp_path / "unet", small_network(), **mild)}, colour),
        "edm": lambda: Loaded({"path": write_edm(tmp_path / "edm.pkl")}, colour),
        "run": lambda: Loaded({"path": run_folder(), "expert": 1}, grey),
        "vdm": lambda: Loaded({"path": write_vdm(tmp_path / "vdm.flax", width=32)}, colour),
    }


@pytest.fixture
def configs(tmp_path, registry) -> dict[str, dict[str, Any]]:
    """Settings for components that have some without a default."""
    for split in ("train", "test"):
        for i in range(3):
            path = tmp_path / split / "grey" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), 40 * i).save(path)
    parts = [registry.get(Slicer, name).Config() for name in ("texture", "lighting")]
    ends = {"experts": [registry.get(Expert, "unet").Config(channels=4)] * 2}
    return {
        "average": ends,
        "slerp": ends,
        "task_arithmetic": ends,
        "celeba_hq": {"root": write_celeba_hq(tmp_path / "faces", n=10, size=16), "size": 8, "verify": False},
        "lsun_church": {"root": write_lsun(tmp_path / "lsun", n_train=3, n_val=2), "size": 8, "verify": False},
        "attribute": {"groups": [["Black_Hair"], ["Blond_Hair"]]},
        "cifar10": {"root": write_cifar10(tmp_path / "cifar10", n_per_batch=2), "verify": False},
        "fashion_mnist": {"root": tiny_fashion_mnist(tmp_path / "fashion"), "verify": False},
        "fixed": {"thresholds": (0.5,), "weights": ((0.1, 0.2, 0.3, 0.4), (0, 0, 0.5, 0.5))},
        "image_folder": {"root": tmp_path, "size": 8},
        "product": {"slicers": parts, "counts": (3, 1)},
    }


@pytest.mark.parametrize("component", INSTALLED)
def test_installed_component_keeps_its_contract(component, configs, loaded, evaluation):
    name = component.name()
    if component.KIND == "experts" and name in loaded:
        checkpoint = loaded[name]()
        check_component(component, component.Config(**checkpoint.settings), image=checkpoint.image)
    else:
        settings = configs.get(name)
        check_component(component, settings and component.Config(**settings), evaluation=evaluation)


@pytest.mark.parametrize("component", [GaussianExpert, PlainTrunk, PosteriorGate])
def test_analytic_component_keeps_its_contract(component):
    check_component(component)


def test_every_kind_has_an_installed_component():
    assert {parameter.id.split("/")[0] for parameter in INSTALLED} == set(KINDS)
