"""Predicted cost of a study's runs in network calls and FLOPs, and which runs they build on."""

import statistics
from dataclasses import dataclass

from moeframe.errors import MoeframeError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.trunk import AdapterExpert
from moeframe.model.flops import count_flops, on_meta
from moeframe.plugin.registry import Registry
from moeframe.studies.study_file import Study, Variant

TRAINED = 3
"""FLOPs of forward and backward pass together, in forward passes (approximate)."""


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one run; FLOPs count the experts only and are None if unknown before the run."""

    training_calls: int
    sampling_calls: int
    """Upper bound on the calls that one image takes."""
    flops_per_call: float | None
    samples: int
    """Images that the metrics sample."""

    @property
    def training_flops(self) -> float | None:
        """FLOPs of forward and backward passes, or None if unknown."""
        return None if self.flops_per_call is None else TRAINED * self.training_calls * self.flops_per_call

    def work(self, flops_per_call: float) -> float:
        """Return the FLOPs of training and sampling at a given cost of one call."""
        return flops_per_call * (TRAINED * self.training_calls + self.samples * self.sampling_calls)


def predicted_costs(study: Study, registry: Registry) -> dict[str, Cost]:
    """Predict the cost of each variant for one seed; each distinct expert is built once, on the meta device."""
    known: dict[tuple[ImageShape, str], float | None] = {}

    def per_call(variant: Variant) -> float | None:
        if variant.runs_of:
            found = [per_call(study.variant(study.source_of(name))) for name in variant.runs_of.values()]
        else:
            found = [_flops_of(variant, config, registry, known) for config in variant.spec.expert_configs]
        values = [value for value in found if value is not None]
        return statistics.mean(values) if len(values) == len(found) else None

    return {
        variant.name: Cost(
            training_calls=training_calls(variant),
            sampling_calls=calls_per_step(variant) * variant.spec.sampler.evaluations,
            flops_per_call=per_call(variant),
            samples=max((int(getattr(metric, "samples", 0) or 0) for metric in variant.spec.metrics), default=0),
        )
        for variant in study.variants
    }


def _flops_of(
    variant: Variant, config: Expert.Config, registry: Registry, known: dict[tuple[ImageShape, str], float | None]
) -> float | None:
    component = registry.get(Expert, config.type)
    if issubclass(component, AdapterExpert):
        return None  # an adapter cannot run without its trunk
    try:
        image = registry.get(Dataset, variant.spec.dataset.type)(variant.spec.dataset).image
        key = (image, config.model_dump_json())
        if key not in known:
            known[key] = None
            known[key] = float(count_flops(on_meta(component(config, image=image)), config.type, image))
    except MoeframeError:  # the data is missing, or the expert cannot run on the meta device
        return None
    return known[key]


def training_calls(variant: Variant) -> int:
    """Count expert calls: all in the warm start, then those that the gate selects if a loss needs predictions."""
    spec = variant.spec
    if variant.weights_of is not None or spec.training.trainable == "none":
        return 0
    joint = (spec.training.steps - spec.warm_start_steps) * joint_calls(variant)
    return (spec.warm_start_steps * spec.n_experts + joint) * spec.training.batch_size


def joint_calls(variant: Variant) -> int:
    """Expert calls per image and step of joint training."""
    return calls_per_step(variant) if any(_needs_prediction(term) for term in variant.spec.objective) else 0


def all_training_calls(study: Study, variant: Variant) -> int:
    """Training calls including those of the variants that this one builds on."""
    return training_calls(variant) + sum(
        all_training_calls(study, study.variant(source)) for source in sources_of(study, variant)
    )


def calls_per_step(variant: Variant) -> int:
    """Experts evaluated per image and step."""
    k = variant.spec.n_experts
    return k if variant.spec.gate is None else variant.spec.gate.n_evaluated(k)


def _needs_prediction(term: Loss.Config) -> bool:
    component = term.component
    assert issubclass(component, Loss)
    return component.NEEDS_PREDICTION


def sources_of(study: Study, variant: Variant) -> list[str]:
    """The variants whose weights this one uses."""
    return list(dict.fromkeys(study.source_of(name) for name in variant.made_of))
