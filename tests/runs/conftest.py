"""A merge of two experts that state their errors in closed form: nothing to download, nothing to train."""

import pytest

import moeframe
from moeframe.plugin.discovery import installed_entry_points

MERGE = """\
name: merged
device: cpu
dataset: {type: gaussian, size: 4, levels: 8, n_train: 64, n_test: 32}
schedule: {type: linear, log_snr_min: -6, log_snr_max: 6}
experts:
  - {type: stated, best_at: -2.0}
  - {type: stated, best_at: 3.0, licence: CC BY-NC 4.0}
gate: {type: switch}
objective: [{type: nll}]
sampler: {type: ddim, steps: 4}
metrics: [{type: bits_per_dim, repeats: 1}, {type: network_calls}, {type: psnr, images: 8}]
training: {trainable: none}
evaluation: {batch_size: 16, samples_shown: 2, diagnostic_images: 8}
"""


@pytest.fixture(scope="module")
def stated_expert_installed(on_disk):
    """The expert of tests/plugins_on_disk, beside what is installed."""
    points = [*installed_entry_points(), on_disk("stated_expert")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moeframe.plugin.discovery.installed_entry_points", lambda: points)
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory, stated_expert_installed):
    path = tmp_path_factory.mktemp("merge") / "merged.yaml"
    path.write_text(MERGE)
    return path


@pytest.fixture(scope="module")
def merged(spec):
    folder = spec.parent / "run"
    return folder, moeframe.merge(spec, out=folder)
