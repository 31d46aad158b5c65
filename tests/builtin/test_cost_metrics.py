"""Cost metrics: counts against hand-worked examples, and what a timing states."""

import re

import pytest
import torch
import torch.nn.functional as F
from small_evaluation import evaluation_of
from torch import nn

from moeframe.errors import UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation
from moeframe.interfaces.component import ImageShape
from moeframe.model.flops import count_flops, on_meta
from moeframe_builtin.metrics.flops import FlopsMetric
from moeframe_builtin.metrics.latency import LatencyMetric
from moeframe_builtin.metrics.network_calls import NetworkCallsMetric
from moeframe_builtin.metrics.parameters import ParametersMetric
from moeframe_builtin.metrics.peak_memory import PeakMemoryMetric


@pytest.fixture(scope="module")
def sparse(registry, tmp_path_factory) -> ModelEvaluation:
    """Four untrained experts, two of which are asked; five steps."""
    return evaluation_of(registry, tmp_path_factory.mktemp("sparse"))


@pytest.fixture(scope="module")
def single(registry, tmp_path_factory) -> ModelEvaluation:
    """One expert and no gate."""
    changes = {"experts": [{"type": "unet", "channels": 4}], "gate": None, "slicer": None}
    return evaluation_of(registry, tmp_path_factory.mktemp("single"), **changes)


# parameters and network calls


def size_of(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_active_for_two_of_four_experts_are_fewer_than_all(sparse):
    found = ParametersMetric(ParametersMetric.Config()).measure(sparse)
    gate, expert = size_of(sparse.gate), size_of(sparse.experts[0])
    assert found.value == gate + 4 * expert == size_of(sparse.model)
    assert found.parts["active_per_sample"] == pytest.approx(gate + 2 * expert)
    assert found.parts["gate"] == gate
    assert found.parts["largest_expert"] == expert
    assert found.parts["experts"] == 4 * expert


def test_a_soft_gate_has_all_parameters_active(registry, tmp_path):
    dense = evaluation_of(registry, tmp_path, gate={"type": "softmax", "width": 4})
    found = ParametersMetric(ParametersMetric.Config()).measure(dense)
    assert found.parts["active_per_sample"] == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, 2 * 5),
        ({"gate": {"type": "softmax", "width": 4}}, 4 * 5),
        ({"gate": {"type": "random"}}, 5),
        ({"sampler": {"type": "heun", "steps": 5}}, 2 * (2 * 5 - 1)),
        ({"sampler": {"type": "ancestral", "steps": 7}}, 2 * 7),
        ({"experts": [{"type": "unet", "channels": 4}], "gate": None, "slicer": None}, 5),
    ],
)
def test_network_calls_are_k_per_step_and_image(registry, changes, calls, tmp_path):
    found = NetworkCallsMetric(NetworkCallsMetric.Config(batch_size=3)).measure(
        evaluation_of(registry, tmp_path, **changes)
    )
    assert found.value == calls
    assert found.n == 3


def test_a_tensor_that_two_experts_share_is_counted_once(registry, tmp_path):
    model = evaluation_of(registry, tmp_path)
    before = ParametersMetric(ParametersMetric.Config()).measure(model).value
    first, second = (expert.network.middle for expert in model.experts[:2])
    second.first = first.first
    after = ParametersMetric(ParametersMetric.Config()).measure(model)
    assert before - after.value == size_of(first.first)


# operations


class Layers(nn.Module):
    """A convolution of 3x8x8 to 5x4x4, a linear layer, and attention over the 16 pixels."""

    CONVOLUTION = 2 * (5 * 4 * 4) * (3 * 3 * 3)
    LINEAR = 2 * 16 * 5 * 7
    ATTENTION = 2 * (2 * 16 * 16 * 7)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.linear = nn.Linear(5, 7)
        self.register_buffer("scale", torch.ones(7), persistent=False)

    def forward(self, z, log_snr):
        tokens = self.linear(self.convolution(z).flatten(2).transpose(1, 2)).relu() * self.scale
        return F.scaled_dot_product_attention(tokens, tokens, tokens) * log_snr.view(-1, 1, 1)


def test_operations_are_those_counted_by_hand_with_a_multiply_add_as_two():
    layers = Layers()
    found = count_flops(on_meta(layers), "layers", ImageShape(3, 8, 8, 256))
    assert found == Layers.CONVOLUTION + Layers.LINEAR + Layers.ATTENTION
    assert {p.device.type for p in layers.parameters()} == {"cpu"}


def test_counting_takes_no_memory_for_the_weights():
    shadow = on_meta(Layers())
    assert all(tensor.is_meta for tensor in (*shadow.parameters(), *shadow.buffers()))


def test_what_needs_values_cannot_be_counted_and_is_named():
    text = "the operations of 'peeking' cannot be counted without values"
    with pytest.raises(UnavailableError, match=re.escape(text)):
        count_flops(lambda z, log_snr: z * float(log_snr[0]), "peeking", ImageShape(3, 8, 8, 256))


def test_two_of_four_experts_cost_the_gate_and_two_experts_per_step(sparse):
    found = FlopsMetric(FlopsMetric.Config()).measure(sparse)
    expert = count_flops(on_meta(sparse.experts[0]), "expert", sparse.image)
    gate = found.parts["per_step_gate"]
    assert found.parts["per_step_dense"] == 4 * expert + gate
    assert found.parts["per_step_active"] == pytest.approx(2 * expert + gate)
    assert found.parts["per_step_active"] < found.parts["per_step_dense"]
    assert found.value == pytest.approx(5 * found.parts["per_step_active"])
    assert "multiply-add counts as 2" in found.how["counted"]
    assert found.how["steps"] == 5


def test_the_operations_of_a_gate_are_its_convolutions_and_its_head(sparse):
    """1 -> 4 channels at 8x8, then 4 -> 4 at 4x4 and at 2x2; 4 + 9 features to 64 to 4 experts."""
    convolutions = 2 * 9 * (1 * 4 * 64 + 4 * 4 * 16 + 4 * 4 * 4)
    head = 2 * ((4 + 9) * 64 + 64 * 4)
    assert FlopsMetric(FlopsMetric.Config()).measure(sparse).parts["per_step_gate"] == convolutions + head


def test_a_soft_gate_costs_all_experts_at_each_step(registry, tmp_path):
    dense = evaluation_of(registry, tmp_path, gate={"type": "softmax", "width": 4})
    found = FlopsMetric(FlopsMetric.Config()).measure(dense)
    assert found.parts["per_step_active"] == pytest.approx(found.parts["per_step_dense"])


def test_on_the_device_attention_is_counted_as_on_meta():
    layers = Layers()
    assert count_flops(layers, "layers", ImageShape(3, 8, 8, 256), "cpu") == count_flops(
        on_meta(layers), "layers", ImageShape(3, 8, 8, 256)
    )


def test_a_gate_that_needs_values_is_counted_on_its_device(registry, tmp_path, single):
    drawing = evaluation_of(registry, tmp_path, gate={"type": "random", "redraw": "per_step"})
    found = FlopsMetric(FlopsMetric.Config()).measure(drawing)
    assert found.parts["per_step_gate"] == 0
    assert found.value == pytest.approx(5 * count_flops(on_meta(single.experts[0]), "expert", single.image))


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 5), ("heun", 9)])
def test_one_expert_costs_itself_at_each_evaluation_of_the_sampler(registry, sampler, steps, tmp_path, single):
    changes = {"experts": [{"type": "unet", "channels": 4}], "gate": None, "slicer": None}
    given = evaluation_of(registry, tmp_path, sampler={"type": sampler, "steps": 5}, **changes)
    found = FlopsMetric(FlopsMetric.Config()).measure(given)
    assert found.value == steps * count_flops(on_meta(single.experts[0]), "expert", single.image)
    assert found.parts["per_step_gate"] == 0


# latency


def test_latency_is_a_median_between_its_quartiles_and_in_its_interval(sparse):
    found = LatencyMetric(LatencyMetric.Config(batch_size=2, batch_sizes=[], repeats=6)).measure(sparse)
    parts = found.parts
    assert 0 < parts["lower_quartile"] <= found.value <= parts["upper_quartile"] <= parts["p95"]
    assert found.interval[0] <= found.value <= found.interval[1]
    stated = {"device", "device_name", "torch", "torch_threads", "batch_size", "sampler", "repeats", "warm_up"}
    assert stated <= found.how.keys()
    assert not LatencyMetric.DETERMINISTIC


def test_latency_of_five_repeats_has_no_interval_and_says_what_it_needs(sparse):
    found = LatencyMetric(LatencyMetric.Config(batch_size=2, batch_sizes=[], repeats=5)).measure(sparse)
    assert found.interval is None
    assert "needs 6" in found.how["interval_method"]


def test_latency_gives_the_other_batch_sizes_beside_its_own(sparse):
    found = LatencyMetric(LatencyMetric.Config(batch_size=2, batch_sizes=[1, 2, 3], repeats=2)).measure(sparse)
    names = ("lower_quartile", "median", "upper_quartile", "p95")
    others = {f"batch {size}: {name}" for size in (1, 3) for name in names}
    assert found.parts.keys() == others | {"lower_quartile", "upper_quartile", "p95", "gate_share_of_step"}
    assert found.parts["batch 1: lower_quartile"] <= found.parts["batch 1: median"] <= found.parts["batch 1: p95"]


def test_the_gate_takes_a_share_of_a_step_between_nothing_and_all_of_it(sparse):
    found = LatencyMetric(LatencyMetric.Config(batch_size=2, batch_sizes=[], repeats=10)).measure(sparse)
    assert 0 < found.parts["gate_share_of_step"] < 1
    assert "at log_snr 0, batch 2" in found.how["gate_share_of_step"]


@pytest.mark.slow
def test_a_slower_gate_takes_a_larger_share(registry, tmp_path):
    shares = [
        LatencyMetric(LatencyMetric.Config(batch_size=8, batch_sizes=[], repeats=10))
        .measure(evaluation_of(registry, tmp_path, gate={"type": "top_k", "k": 1, "width": width}))
        .parts["gate_share_of_step"]
        for width in (1, 512)
    ]
    assert shares[0] < shares[1]


def test_without_a_gate_there_is_no_share(single):
    found = LatencyMetric(LatencyMetric.Config(batch_size=1, batch_sizes=[], repeats=2)).measure(single)
    assert "gate_share_of_step" not in found.parts


# memory


def test_peak_memory_is_at_least_what_was_in_use_before(sparse):
    found = PeakMemoryMetric(PeakMemoryMetric.Config(batch_size=2)).measure(sparse)
    assert found.value >= found.parts["before_sampling"] > 0
    assert "resident set" in found.how["source"]
    assert found.how["kind"] == "resident memory (RSS)"
