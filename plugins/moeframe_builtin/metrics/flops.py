"""Arithmetic spent on sampling an image, counted without computing anything."""

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.randomness import Trajectories
from moeframe.shapes import Images, LogSnr
from moeframe_builtin.metrics.dispatch import IMAGES, dispatch_while_sampling
from moeframe_builtin.metrics.sampling_run import sampler_of

Module = TypeVar("Module", bound=nn.Module)


class FlopsMetric(Metric):
    """Floating-point operations to sample one image, with only the experts that are asked; per step as parts."""

    class Config(Metric.Config):
        type: Literal["flops"] = "flops"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Operations of each expert and of the gate on one image, times how often each is asked while sampling."""
        experts = [count_flops(on_meta(expert), expert.name(), evaluation.image) for expert in evaluation.experts]
        per_gate = 0 if evaluation.gate is None else _of_gate(evaluation.gate, evaluation)
        dispatch = dispatch_while_sampling(evaluation)
        active = sum(calls * flops for calls, flops in zip(dispatch.calls, experts, strict=True))
        total = active + per_gate * dispatch.steps
        return Measurement(
            value=float(total),
            unit="FLOPs/image",
            better="lower",
            n=IMAGES,
            parts={
                "per_step_active": total / dispatch.steps,
                "per_step_dense": float(sum(experts) + per_gate),
                "per_step_gate": float(per_gate),
            },
            how={
                "counted": "torch.utils.flop_counter on the meta device, one image at a time: matrix products and "
                "convolutions only, a multiply-add counts as 2; no normalisation, activation or sampler arithmetic",
                "active": f"the experts that are dispatched to, counted while sampling {IMAGES} images",
                "dense": "all experts",
                "steps": dispatch.steps,
                "sampler": sampler_of(evaluation),
                "torch": torch.__version__,
            },
        )


def _of_gate(gate: Gate, evaluation: Evaluation) -> int:
    shadow, items = on_meta(gate), Trajectories.numbered(evaluation.streams, 0, 1)
    return count_flops(lambda z, log_snr: shadow.route(z, log_snr, items), gate.name(), evaluation.image)


def count_flops(run: Callable[[Images, LogSnr], object], name: str, image: ImageShape) -> int:
    """Operations of `run` on one image on the meta device. Raises UnavailableError where it needs the values.

    The meta device spares the arithmetic, and splits attention into products that are counted; those of torch's fused
    attention on a CPU are not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    z = torch.empty(1, *image.tensor_shape, device="meta")
    try:
        with torch.no_grad(), counter:
            run(z, torch.empty(1, device="meta"))
    except RuntimeError as error:
        raise UnavailableError(
            f"the operations of '{name}' cannot be counted without values ({str(error).splitlines()[0]}); "
            "leave the metric out"
        ) from error
    return int(counter.get_total_flops())


def on_meta(module: Module) -> Module:
    """A copy with the shapes of all parameters and buffers and none of their values: it takes no memory."""
    shapes: dict[int, Any] = {
        id(each): nn.Parameter(torch.empty_like(each, device="meta"), requires_grad=False)
        for each in module.parameters()
    }
    shapes |= {id(each): torch.empty_like(each, device="meta") for each in module.buffers()}
    return copy.deepcopy(module, shapes)
