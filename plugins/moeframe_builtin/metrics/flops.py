"""FLOPs of sampling an image, counted without computing anything."""

from typing import Literal

import torch
from torch import nn

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.interfaces.trunk import AdapterExpert, Trunk
from moeframe.model.flops import count_flops, on_meta
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, LogSnr
from moeframe_builtin.metrics.support.dispatch import IMAGES, dispatch_while_sampling
from moeframe_builtin.metrics.support.sampling_run import sampler_of


class FlopsMetric(Metric):
    """Floating-point operations to sample one image, with only the experts that are evaluated; per step as parts."""

    ROLE = "cost"

    class Config(Metric.Config):
        type: Literal["flops"] = "flops"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """FLOPs of each expert and of the gate on one image, times its evaluations while sampling."""
        trunk = evaluation.trunk
        per_trunk = 0 if trunk is None else count_flops(on_meta(trunk), trunk.name(), evaluation.image)
        experts = [_of_expert(expert, trunk, per_trunk, evaluation.image) for expert in evaluation.experts]
        per_gate = 0 if evaluation.gate is None else _of_gate(evaluation.gate, evaluation)
        dispatch = dispatch_while_sampling(evaluation)
        active = sum(calls * flops for calls, flops in zip(dispatch.calls, experts, strict=True))
        total = active + (per_gate + per_trunk) * dispatch.steps
        on_trunk = sum(isinstance(expert, AdapterExpert) for expert in evaluation.experts)
        independent = float(sum(experts) + per_gate + on_trunk * per_trunk)
        shared = {"per_step_trunk": float(per_trunk), "per_step_dense_of_independent_experts": independent}
        return Measurement(
            value=float(total),
            unit="FLOPs/image",
            better="lower",
            n=IMAGES,
            parts={
                "per_step_active": total / dispatch.steps,
                "per_step_dense": float(sum(experts) + per_gate + per_trunk),
                "per_step_gate": float(per_gate),
                **(shared if trunk is not None else {}),
            },
            how={
                "counted": "torch.utils.flop_counter, on the meta device where that suffices, one image at a time: "
                "matrix products and convolutions only, a multiply-add counts as 2; no normalisation, activation or "
                "sampler arithmetic",
                "active": f"the experts that are dispatched to, counted while sampling {IMAGES} images",
                "dense": "all experts",
                "steps": dispatch.steps,
                "sampler": sampler_of(evaluation),
                "torch": torch.__version__,
            },
        )


def _of_expert(expert: Expert, trunk: Trunk | None, per_trunk: int, image: ImageShape) -> int:
    """For an adapter, only the layers after the trunk."""
    if not isinstance(expert, AdapterExpert):
        try:
            return count_flops(on_meta(expert), expert.name(), image)
        except UnavailableError:  # it inspects log-SNRs, say, to find its range
            return count_flops(expert, expert.name(), image, _device_of(expert))
    assert trunk is not None
    layers, adapter = on_meta(trunk), on_meta(expert)

    def both(z: Images, log_snr: LogSnr) -> object:
        return layers.finish(layers(z, log_snr), adapter, z, log_snr)

    return count_flops(both, expert.name(), image) - per_trunk


def _of_gate(gate: Gate, evaluation: Evaluation) -> int:
    shadow, items = on_meta(gate), Trajectories.numbered(evaluation.streams, 0, 1)
    features = None
    if gate.reads_trunk and evaluation.trunk is not None:
        z = torch.empty(1, *evaluation.image.tensor_shape, device="meta")
        features = on_meta(evaluation.trunk)(z, torch.empty(1, device="meta"))
    try:
        return count_flops(
            lambda z, log_snr: shadow.route_from(features, z, log_snr, items), gate.name(), evaluation.image
        )
    except UnavailableError:
        if features is not None:
            raise
        device = _device_of(gate)
        return count_flops(
            lambda z, log_snr: gate.route_from(None, z, log_snr, items), gate.name(), evaluation.image, device
        )


def _device_of(module: nn.Module) -> torch.device:
    return next((each.device for each in module.parameters()), torch.device("cpu"))
