"""Number of parameters."""

from typing import Literal

from torch import nn

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.interfaces.trunk import AdapterExpert
from moeframe_builtin.metrics.support.dispatch import IMAGES, dispatch_while_sampling
from moeframe_builtin.metrics.support.sampling_run import sampler_of


class ParametersMetric(Metric):
    """Parameters of the model; those active for one sample and step, of the experts and the gate, as parts."""

    ROLE = "cost"

    class Config(Metric.Config):
        type: Literal["parameters"] = "parameters"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Counts; `active_per_sample` is the mean over images and steps of what one network call uses."""
        gates = [] if evaluation.gate is None else [evaluation.gate]
        trunks = [] if evaluation.trunk is None else [evaluation.trunk]
        sizes = [_count(expert) for expert in evaluation.experts]
        gate, trunk = _count(*gates), _count(*trunks)
        dispatch = dispatch_while_sampling(evaluation)
        active = sum(calls / dispatch.steps * size for calls, size in zip(dispatch.calls, sizes, strict=True))
        adapters = [expert for expert in evaluation.experts if isinstance(expert, AdapterExpert)]
        shared = {
            "trunk": float(trunk),
            "adapters": float(_count(*adapters)),
            "independent_experts": float(
                gate + _count(*evaluation.experts) - _count(*adapters) + len(adapters) * trunk
            ),
        }
        return Measurement(
            value=float(_count(*evaluation.experts, *gates, *trunks)),
            unit="parameters",
            better="lower",
            n=1,
            parts={
                "active_per_sample": active + gate + trunk,
                "gate": float(gate),
                "experts": float(_count(*evaluation.experts)),
                "largest_expert": float(max(sizes)),
                **(shared if trunks else {}),
            },
            how={
                "counted": "every tensor counted once, even if experts share it",
                "active_per_sample": f"gate + experts dispatched to, mean over the steps of {IMAGES} images"
                + (" + trunk, which holds all the layers that the adapters change" if trunks else ""),
                **({"independent_experts": "each adapter replaced by a separate network"} if trunks else {}),
                "sampler": sampler_of(evaluation),
            },
        )


def _count(*modules: nn.Module) -> int:
    return sum({id(each): each.numel() for module in modules for each in module.parameters()}.values())
