"""Shape checks at run time in every test: jaxtyping annotations are enforced by beartype.

`make check` does without them (MOEFRAME_CHECK_SHAPES=0): they take a third of the time of the fast tests.
"""

import gc
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the cores to the tests beside them

from jaxtyping import install_import_hook

if os.environ.get("MOEFRAME_CHECK_SHAPES") != "0":
    install_import_hook(["moeframe", "moeframe_builtin", "moeframe_pretrained"], "beartype.beartype")

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish():
    """Leave modules and tests out of later collections: a run collects garbage, half a second where all are walked."""
    import hypothesis  # noqa: F401  before the freeze: it looks for what refers to a generator that it registers

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def registry():
    """Everything that is installed."""
    from moeframe.plugin.registry import Registry

    return Registry.installed()


# --- plugins and specs that several files use -------------------------------------------------------------------------

import importlib.util  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from small_study import STUDY  # noqa: E402

collect_ignore_glob = ["plugins_on_disk/*"]

PLUGINS_ON_DISK = Path(__file__).parent / "plugins_on_disk"


@dataclass(frozen=True)
class FakeDistribution:
    """As much of a distribution as loading looks at."""

    name: str
    version: str


@dataclass(frozen=True)
class FakeEntryPoint:
    """An entry point to a file of tests/plugins_on_disk."""

    name: str
    dist: FakeDistribution | None

    def load(self):
        spec = importlib.util.spec_from_file_location(self.name, PLUGINS_ON_DISK / f"{self.name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.fixture(scope="session")
def on_disk():
    """name -> entry point of a fake plugin; its distribution is called dist-NAME unless told."""

    def entry_point(name, distribution=None):
        return FakeEntryPoint(name, FakeDistribution(distribution or f"dist-{name}", "1.2"))

    return entry_point


TINY_SPEC = """\
name: tiny
device: cpu
dataset: {type: gaussian, size: 4, levels: 8, n_train: 64, n_test: 16}
schedule: {type: linear, log_snr_min: -6, log_snr_max: 6}
experts: [{type: unet, copies: 2, channels: 4, channel_multipliers: [1]}]
gate: {type: softmax, width: 4}
objective: [{type: nll}]
sampler: {type: ddim, steps: 2}
metrics: [{type: network_calls}, {type: parameters}]
training: {steps: 4, batch_size: 4, warm_start: 0, learning_rate_warmup: 0, checkpoint_every: 2, validation_images: 4}
evaluation: {batch_size: 4, samples_shown: 2, diagnostic_images: 4}
"""


@pytest.fixture(scope="session")
def tiny_text():
    """A spec that runs in a second: four steps of two small experts on 4x4 Gaussian images."""
    return TINY_SPEC


@pytest.fixture
def tiny_spec(tmp_path, tiny_text):
    """The tiny spec as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_text)
    return path


@pytest.fixture
def study_file(tmp_path, tiny_text):
    """A little study of the tiny spec as a file."""
    (tmp_path / "tiny.yaml").write_text(tiny_text)
    path = tmp_path / "little.yaml"
    path.write_text(STUDY)
    return path
