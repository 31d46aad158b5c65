"""The built-in metrics: values against direct calls and closed forms, and what they state beside the value."""

import pytest
from small_evaluation import evaluation_of

from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe_builtin.metrics.bits_per_dim import BitsPerDimMetric


@pytest.fixture(scope="module")
def sparse(registry, tmp_path_factory) -> ModelEvaluation:
    """Four untrained experts, two of which are asked."""
    return evaluation_of(registry, tmp_path_factory.mktemp("sparse"))


# bits_per_dim


def test_the_interval_is_about_the_value_by_its_standard_error(registry, tmp_path):
    dataset = {"type": "gaussian", "size": 8, "std": 0.3, "n_train": 40, "n_test": 120}
    many = evaluation_of(registry, tmp_path, dataset=dataset)
    interval = BitsPerDimMetric(BitsPerDimMetric.Config()).measure(many)
    low, high = interval.interval
    assert (low + high) / 2 == pytest.approx(interval.value)
    assert (high - low) / 2 == pytest.approx(1.96 * interval.parts["standard_error"], rel=1e-3)


def test_the_value_is_the_sum_of_its_parts(sparse):
    found = BitsPerDimMetric(BitsPerDimMetric.Config()).measure(sparse)
    assert found.value == pytest.approx(sum(found.parts[part] for part in ("reconstruction", "prior", "diffusion")))
    assert found.n == found.how["images"] == 24
    assert found.how["log_snr_range"] == [-10.0, 10.0]
    assert found.how["uniform_model"] == 8.0


@pytest.mark.slow
def test_more_repeats_lower_the_monte_carlo_error(sparse):
    few, many = (BitsPerDimMetric(BitsPerDimMetric.Config(repeats=r)).measure(sparse) for r in (4, 64))
    assert many.parts["monte_carlo_error"] < 0.6 * few.parts["monte_carlo_error"]
    assert abs(many.value - few.value) < 4 * few.parts["monte_carlo_error"]


def test_each_repeat_draws_its_own_noise(sparse):
    two, three = (BitsPerDimMetric(BitsPerDimMetric.Config(repeats=r)).measure(sparse) for r in (2, 3))
    assert two.parts["reconstruction"] != three.parts["reconstruction"]  # which no time enters, only the noise


def test_the_bound_does_not_depend_on_the_batch_size(registry, sparse, tmp_path):
    other = evaluation_of(registry, tmp_path, evaluation={"batch_size": 5})
    one, two = (BitsPerDimMetric(BitsPerDimMetric.Config()).measure(e) for e in (sparse, other))
    assert one.value == pytest.approx(two.value, rel=1e-5)


def test_an_untrained_network_codes_no_better_than_the_data_allow(sparse):
    found = BitsPerDimMetric(BitsPerDimMetric.Config()).measure(sparse)
    assert found.value > sparse.assembly.dataset.entropy_bits_per_dim
