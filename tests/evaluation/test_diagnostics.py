"""diagnostics.json against closed forms, and what variants of a study share."""

import json
import math

import numpy as np
import pytest
import torch

from moeframe.assembly import assemble
from moeframe.evaluation.diagnostics import _bound_by_log_snr, _bounds, write_diagnostics
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.likelihood.continuous import continuous_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.model.routing import _found
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.testing import GaussianExpert
from moeframe.training.validation import measure_validation

STD = 0.25
DATA = f"dataset={{type: gaussian, size: 8, std: {STD}, n_test: 256, n_train: 8}}"


def assembled(tiny_spec, *overrides):
    registry = Registry.installed()
    return assemble(load_spec(tiny_spec, registry, [DATA, *overrides]), registry, 0)


@pytest.fixture
def ideal(tiny_spec, tmp_path):
    many = ("evaluation.diagnostic_images=256", "evaluation.batch_size=256", "training.validation_images=256")
    wide = "schedule={type: linear, log_snr_min: -10, log_snr_max: 13}"
    assembly = assembled(tiny_spec, *many, wide)
    model = MergedDenoiser([GaussianExpert(GaussianExpert.Config(std=STD), image=assembly.image)])
    return assembly, ModelEvaluation(assembly, model, tmp_path)


def test_the_bound_by_noise_level_of_gaussian_pixels_meets_its_closed_form(ideal):
    found = _bound_by_log_snr(*ideal)
    # E‖ε - ε̂‖²/D = α² std² / (α² std² + σ²); half of it in nats, over ln 2 in bits, for each unit of log-SNR
    signal = 1 / (1 + np.exp(-np.array(found["log_snr"]))) * STD**2
    noise = 1 / (1 + np.exp(np.array(found["log_snr"])))
    expected = 0.5 * signal / (signal + noise) / math.log(2)
    assert found["unit"] == "bits/dim per unit log-SNR"
    # the table of a study integrates it over the whole range, whatever the schedule does with time
    whole = 0.5 * math.log2(1 + STD**2 * math.exp(13)) - 0.5 * math.log2(1 + STD**2 * math.exp(-10))
    assert np.trapezoid(found["merged"], found["log_snr"]) == pytest.approx(whole, rel=0.02)
    # 256 images of 64 pixels: sqrt(2 / 16384) = 1.1 % is one standard error of a mean of squares
    assert found["merged"] == pytest.approx(expected.tolist(), rel=0.05)


def test_the_bound_of_each_image_is_on_average_what_the_noise_range_costs(ideal):
    assembly, evaluation = ideal
    bits = _bounds(assembly, evaluation, evaluation.model)
    assert len(bits) == 256
    # the integral of the curve above; at log-SNR 13 a level is read off without error, at -10 nothing is left
    low, high = (0.5 * math.log2(1 + STD**2 * math.exp(end)) for end in (-10, 13))
    assert float(bits.mean()) == pytest.approx(high - low, abs=0.15)


def test_neighbouring_images_are_not_given_neighbouring_noise_levels(ideal, monkeypatch):
    assembly, evaluation = ideal
    seen = []

    def bound(model, schedule, image, levels, times, items):
        seen.append(times)
        return continuous_bound(model, schedule, image, levels, times, items)

    monkeypatch.setattr("moeframe.evaluation.diagnostics.continuous_bound", bound)
    monkeypatch.setattr("moeframe.training.validation.continuous_bound", bound)
    _bounds(assembly, evaluation, evaluation.model)
    measure_validation(assembly, evaluation.model, step=1)
    assert len(seen) == 5
    for times in seen:
        spans = [float(part.max() - part.min()) for part in times.split(len(times) // 4)]
        assert min(spans) > 0.5, "a quarter of consecutive images sees more than half of the range"


class SeesItsNeighbours(GaussianExpert):
    """Looks at the other images of its batch, so that its numbers bound nothing."""

    def forward(self, z, log_snr):
        return super().forward(z, log_snr) + z.mean(0, keepdim=True)


def test_a_model_whose_numbers_bound_nothing_has_none_in_its_diagnostics(ideal, tmp_path):
    assembly, evaluation = ideal
    config = GaussianExpert.Config(std=STD)
    model = MergedDenoiser([SeesItsNeighbours(config, image=assembly.image)])
    coupled = ModelEvaluation(assembly, model, tmp_path / "coupled")
    for each, folder in ((evaluation, tmp_path / "sound"), (coupled, tmp_path / "coupled")):
        write_diagnostics(folder, assembly, each)
    sound, spoilt = (json.loads((tmp_path / name / "diagnostics.json").read_text()) for name in ("sound", "coupled"))
    assert {"bound_by_log_snr", "image_bits"} <= set(sound)
    assert not {"bound_by_log_snr", "image_bits", "expert_slice_bits"} & set(spoilt)
    assert "batch" in spoilt["no_bound"]
    assert "no_bound" not in sound


def test_variants_of_a_seed_begin_from_the_same_noise_and_other_seeds_from_another(tiny_spec, tmp_path):
    """Paired samples: whatever the gate, the sampler is handed the same noise."""
    registry = Registry.installed()
    changes = {"soft": (), "sparse": ("gate={type: top_k, k: 1, width: 4}",), "narrow": ("experts.0.channels=8",)}
    drawn = {}
    for name, overrides in changes.items():
        for seed in (0, 1):
            assembly = assemble(load_spec(tiny_spec, registry, list(overrides)), registry, seed)
            evaluation = ModelEvaluation(assembly, assembly.model.eval(), tmp_path / f"{name}-{seed}")
            first = next(iter(evaluation.trajectory(0, 4)))
            drawn[name, seed] = first.z
    for seed in (0, 1):
        assert all(torch.equal(drawn[name, seed], drawn["soft", seed]) for name in changes)
    assert not torch.equal(drawn["soft", 0], drawn["soft", 1])


def test_experts_that_weigh_alike_share_the_hit_and_an_unknown_slice_has_none():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 1.0]])
    assert _found(weights, torch.tensor([0, 1, 2, 3])).tolist() == pytest.approx([0.5, 1.0, 1 / 3, 0.0])
