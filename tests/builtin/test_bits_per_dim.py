"""The metric bits_per_dim: its methods against one another, its settings, what it states and what it refuses."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import moeframe
from moeframe.assembly import assemble
from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.interfaces.gate import Routing
from moeframe.interfaces.metric import Measurement
from moeframe.likelihood.bound import standard_error
from moeframe.likelihood.discrete import discrete_bound
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.randomness import Trajectories
from moeframe.runs.loaded import load
from moeframe.spec.binding import bind
from moeframe.spec.messages import UnlocatedProblemsError
from moeframe.testing import GaussianExpert
from moeframe_builtin.metrics.bits_per_dim import SETTINGS, BitsPerDimMetric

STD = 0.3
SPECS = Path(__file__).parent.parent.parent / "specs"
NOWHERE = Path("/nowhere")
"""Likelihood needs no samples, so nothing is kept."""


def spec_of(**changes: Any) -> dict[str, Any]:
    return {
        "name": "bits",
        "device": "cpu",
        "dataset": {"type": "gaussian", "size": 4, "levels": 64, "std": STD, "n_train": 128, "n_test": 48},
        "slicer": {"type": "color_variance"},
        "schedule": {"type": "linear", "log_snr_min": -9, "log_snr_max": 8},
        "experts": [{"type": "unet", "copies": 2, "channels": 4, "channel_multipliers": [1]}],
        "gate": {"type": "softmax", "width": 4},
        "objective": [{"type": "nll"}],
        "sampler": {"type": "ddim", "steps": 2},
        **changes,
    }


def evaluation_of(registry: Registry, **changes: Any) -> ModelEvaluation:
    assembly = assemble(bind(spec_of(**changes), registry), registry, seed=0)
    return ModelEvaluation(assembly, assembly.model, NOWHERE)


@pytest.fixture(scope="module")
def networks(registry) -> ModelEvaluation:
    """Two untrained experts and a softmax gate."""
    return evaluation_of(registry)


@pytest.fixture(scope="module")
def gaussian(registry) -> ModelEvaluation:
    """The true model of the data, one expert."""
    found = evaluation_of(registry)
    expert = GaussianExpert(GaussianExpert.Config(std=STD), image=found.image)
    return ModelEvaluation(found.assembly, MergedDenoiser([expert]), NOWHERE)


def found(evaluation: ModelEvaluation, **settings: Any) -> Measurement:
    return BitsPerDimMetric(BitsPerDimMetric.Config.model_validate(settings)).measure(evaluation)


METHODS = {
    "continuous": {},
    "fitted": {"importance": "fitted"},
    "discrete": {"method": "discrete", "steps": 12},
    "terms": {"method": "discrete", "steps": 64, "terms": 4},
    "ode": {"method": "ode", "rtol": 1e-4, "atol": 1e-4},
}
PARTS = {
    "continuous": {"reconstruction", "prior", "diffusion"},
    "discrete": {"reconstruction", "prior", "diffusion"},
    "ode": {"prior", "volume", "dequantisation"},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_states_what_a_reader_needs(networks, name):
    bits = found(networks, images=24, repeats=2, **METHODS[name])
    how = bits.how
    parts = PARTS[how["method"]]
    assert bits.parts.keys() == parts | {"standard_error", "monte_carlo_error"}
    assert bits.value == pytest.approx(sum(bits.parts[part] for part in parts))
    assert (bits.unit, bits.better, bits.n) == ("bits/dim", "lower", 24)
    assert (how["images"], how["draws_per_image"], how["split"]) == (24, 2, "test")
    assert (how["log_snr_range"], how["levels"], how["uniform_model"]) == ([-9.0, 8.0], 64, 6.0)
    assert {"estimator", "method", "network_calls_per_image", "interval_method", "validity"} <= how.keys()
    assert bits.interval is None, "24 images are too few for an interval of their mean"
    assert how["interval_method"] == "none: 24 images; an interval of their mean needs 30"
    assert how["standard_error"].startswith("over test images")
    assert json.loads(json.dumps(dict(how))) == how


@pytest.mark.parametrize(
    ("name", "calls"),
    [("continuous", 2 * 2), ("fitted", 2 * 2 + 2 * 128 / 24), ("discrete", 2 * 2 * 12), ("terms", 2 * 2 * 4)],
)
def test_network_calls_per_image_count_experts_draws_terms_and_the_pilot(networks, name, calls):
    bits = found(networks, images=24, repeats=2, **METHODS[name])
    assert bits.how["network_calls_per_image"] == pytest.approx(calls)


def test_the_network_calls_stated_are_those_made(networks):
    made = []
    hooks = [
        expert.register_forward_hook(lambda _, inputs, __: made.append(len(inputs[0]))) for expert in networks.experts
    ]
    bits = found(networks, images=24, repeats=2, method="discrete", steps=5)
    for hook in hooks:
        hook.remove()
    probe = sum(made) - bits.how["network_calls_per_image"] * 24
    assert 0 < probe < 2 * 300, "only the probe's are left out"


@pytest.mark.parametrize("name", ["continuous", "fitted", "terms"])
def test_every_bound_of_the_true_model_meets_the_exact_code_length(gaussian, name):
    bits = found(gaussian, repeats=32, **METHODS[name])
    levels = gaussian.test.images(torch.arange(48))
    exact = float(gaussian.assembly.dataset.bits_per_dim(levels).mean()) + 0.5 * math.log2(1 + math.exp(-8) / STD**2)
    steps = {"terms": 64}.get(name)
    slack = 0.0 if steps is None else 2 * 17 / steps  # first order in the step of log-SNR
    error = bits.parts["monte_carlo_error"]
    assert error < 0.08
    assert -4 * error - 0.01 < bits.value - exact < 4 * error + slack + 0.01


@pytest.mark.slow
def test_the_methods_agree_on_the_true_model_in_the_order_of_the_theory(gaussian):
    bits = {
        name: found(gaussian, repeats=8, **settings)
        for name, settings in {
            "continuous": {"importance": "fitted"},
            "coarse": {"method": "discrete", "steps": 8},
            "fine": {"method": "discrete", "steps": 128},
            "ode": {"method": "ode", "rtol": 1e-4, "atol": 1e-4, "divergence": "exact"},
        }.items()
    }
    error = 4 * max(one.parts["monte_carlo_error"] for one in bits.values())
    assert bits["coarse"].value > bits["fine"].value > bits["continuous"].value - error
    assert abs(bits["ode"].value - bits["continuous"].value) < error + 0.02


@pytest.mark.slow
def test_the_methods_keep_their_order_on_a_trained_mixture_of_networks(tmp_path):
    settings = ["seeds=[0]", "experts.0.channels=8", "experts.0.copies=2", "training.steps=120", "metrics=[]"]
    settings += ["evaluation.diagnostic_images=8", "evaluation.samples_shown=2", "training.validation_images=8"]
    moeframe.run(SPECS / "digits.yaml", overrides=settings, out=tmp_path / "run")
    trained = load(tmp_path / "run", device="cpu")
    evaluation = ModelEvaluation(trained.assembly, trained.denoiser, NOWHERE)
    bits = [
        found(evaluation, images=100, **settings)
        for settings in (
            {"method": "discrete", "steps": 10, "repeats": 2},
            {"method": "discrete", "steps": 100, "terms": 10, "repeats": 3},
            {"method": "discrete", "steps": 1000, "terms": 10, "repeats": 3},
            {"repeats": 16, "importance": "fitted"},
        )
    ]
    for coarse, fine in itertools.pairwise(bits):
        error = math.hypot(coarse.parts["monte_carlo_error"], fine.parts["monte_carlo_error"])
        assert coarse.value - fine.value > -3 * error
    assert bits[0].value - bits[-1].value > 10 * bits[-1].parts["monte_carlo_error"]
    ode = found(evaluation, images=32, method="ode", rtol=1e-3, atol=1e-3, repeats=2)
    same = found(evaluation, images=32, repeats=64)
    assert abs(ode.value - same.value) < 0.1 + 3 * math.hypot(
        ode.parts["monte_carlo_error"], same.parts["monte_carlo_error"]
    )


def test_the_discrete_value_is_the_mean_of_direct_calls(gaussian):
    bits = found(gaussian, repeats=2, method="discrete", steps=10)
    levels, n = gaussian.test.images(torch.arange(48)), 48
    direct = [
        discrete_bound(
            gaussian.denoiser,
            gaussian.schedule,
            gaussian.image,
            levels,
            torch.zeros(n),
            Trajectories.numbered(gaussian.streams, repeat * n, (repeat + 1) * n),
            steps=10,
            terms=10,
        )
        for repeat in range(2)
    ]
    assert bits.value == pytest.approx(float(torch.stack([bound.total.mean() for bound in direct]).mean()), rel=1e-6)
    assert bits.parts["standard_error"] == pytest.approx(standard_error(direct), rel=1e-6)


@pytest.mark.parametrize("name", ["fitted", "terms"])
def test_the_value_does_not_depend_on_the_batch_size(registry, networks, name):
    other = evaluation_of(registry, evaluation={"batch_size": 7})
    one, two = (found(evaluation, images=24, repeats=2, **METHODS[name]).value for evaluation in (networks, other))
    assert one == pytest.approx(two, rel=1e-4)


def test_a_single_repeat_has_a_standard_error_and_no_monte_carlo_error(gaussian):
    bits = found(gaussian, repeats=1)
    assert math.isfinite(bits.parts["standard_error"])
    assert "monte_carlo_error" not in bits.parts


def test_a_fitted_density_comes_from_training_images_alone(gaussian):
    bits = found(gaussian, images=24, repeats=1, importance="fitted")
    assert bits.how["pilot"] == "128 training images"
    assert sum(bits.how["density"]["masses"]) == pytest.approx(1)
    fewer = found(gaussian, images=12, repeats=2, importance="fitted")
    assert fewer.how["density"] == bits.how["density"]


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"steps": 10},
            "'steps' is a setting of method 'discrete', but the method is 'continuous', which takes importance; "
            "remove 'steps' or set method: discrete",
        ),
        ({"method": "discrete", "importance": "fitted"}, "'importance' is a setting of method 'continuous'"),
        (
            {"method": "discrete", "solver": "rk4"},
            "'solver' is a setting of method 'ode', but the method is 'discrete'",
        ),
        ({"method": "ode", "terms": 3}, "'terms' is a setting of method 'discrete', but the method is 'ode'"),
        ({"method": "discrete", "steps": 10, "terms": 11}, "11 terms exceed the 10 steps that there are"),
        ({"method": "discrete", "terms": 1001}, "1001 terms exceed the 1000 steps that there are"),
    ],
)
def test_a_setting_of_another_method_is_an_error_at_its_key(registry, settings, message):
    with pytest.raises(ValidationError) as direct:
        BitsPerDimMetric.Config.model_validate(settings)
    assert message in str(direct.value)
    with pytest.raises(UnlocatedProblemsError) as error:
        bind(spec_of(metrics=[{"type": "bits_per_dim", **settings}]), registry)
    (problem,) = error.value.problems
    assert message in problem.message
    assert problem.path[:2] == ("metrics", 0)
    assert problem.path[2] in settings


def test_an_unknown_method_is_reported_once(registry):
    with pytest.raises(UnlocatedProblemsError) as error:
        bind(spec_of(metrics=[{"type": "bits_per_dim", "method": "exact", "steps": 10}]), registry)
    (problem,) = error.value.problems
    assert problem.path == ("metrics", 0, "method")


@pytest.mark.parametrize("settings", [{}, {"images": 256, "repeats": 2}, *METHODS.values()])
def test_the_settings_written_in_a_spec_survive_a_dump(registry, settings):
    spec = bind(spec_of(metrics=[{"type": "bits_per_dim", **settings}]), registry)
    assert bind(spec.dump(), registry) == spec
    dumped = spec.dump()["metrics"][0]
    method = settings.get("method", "continuous")
    assert dumped.keys() == {"type", "label", "images", "repeats", "method"} | SETTINGS[method]


def test_every_setting_belongs_to_one_method():
    shared = {"type", "label", "images", "repeats", "method"}
    assert BitsPerDimMetric.Config.model_fields.keys() == shared.union(*SETTINGS.values())
    assert sum(len(settings) for settings in SETTINGS.values()) == len(frozenset().union(*SETTINGS.values()))


# refusals


@pytest.mark.parametrize("name", METHODS)
def test_a_gate_that_looks_labels_up_has_no_bits(registry, name, monkeypatch):
    evaluation = evaluation_of(registry, gate={"type": "uniform"})
    labels = torch.arange(10_000) % 2

    def cheat(z, log_snr, trajectories=None):
        weights = torch.nn.functional.one_hot(labels[trajectories.ids], 2).to(z)
        return Routing(weights, weights)

    monkeypatch.setattr(evaluation.gate, "route", cheat)
    entry = measure(BitsPerDimMetric(BitsPerDimMetric.Config.model_validate(METHODS[name])), evaluation)
    assert entry.keys() == {"unavailable"}
    assert entry["unavailable"].startswith("no likelihood: for the same noisy image and log-SNR")


def test_a_random_gate_has_a_bound_but_no_ode(registry):
    evaluation = evaluation_of(registry, gate={"type": "random"})
    assert found(evaluation, repeats=1).how["network_calls_per_image"] == 1
    with pytest.raises(UnavailableError, match="random"):
        found(evaluation, repeats=1, method="ode")


def test_few_dimensions_and_draws_need_more_images_for_an_interval(networks):
    dims = networks.image.n_dims
    alone = found(networks, images=32, repeats=1)
    assert alone.interval is None
    assert alone.how["interval_method"] == (
        f"none: 32 images; an interval of their mean needs {1920 // dims} of {dims} dimensions with 1 draw(s) each"
    )
    assert found(networks, images=32, repeats=4).interval is not None
