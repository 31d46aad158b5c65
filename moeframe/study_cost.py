"""What the runs of a study cost, in network evaluations, and which runs they build on."""

from moeframe.interfaces.loss import Loss
from moeframe.study_file import Study, Variant


def training_calls(variant: Variant) -> int:
    """Phase 1 asks every expert; phase 2 those that the gate asks, none where no term looks at their predictions."""
    spec = variant.spec
    if variant.weights_of is not None or spec.training.trainable == "none":
        return 0
    joint = (spec.training.steps - spec.warm_start_steps) * joint_calls(variant)
    return (spec.warm_start_steps * spec.n_experts + joint) * spec.training.batch_size


def joint_calls(variant: Variant) -> int:
    """Of one image in one step of phase 2."""
    return calls_per_step(variant) if any(_needs_prediction(term) for term in variant.spec.objective) else 0


def all_training_calls(study: Study, variant: Variant) -> int:
    """With those of the variants that it is made of."""
    return training_calls(variant) + sum(
        all_training_calls(study, study.variant(source)) for source in sources_of(study, variant)
    )


def calls_per_step(variant: Variant) -> int:
    """Experts asked for one image in one step."""
    k = variant.spec.n_experts
    return k if variant.spec.gate is None else variant.spec.gate.asked(k)


def _needs_prediction(term: Loss.Config) -> bool:
    component = term.component
    assert issubclass(component, Loss)
    return component.NEEDS_PREDICTION


def sources_of(study: Study, variant: Variant) -> list[str]:
    """The variants whose weights this one is made of."""
    return list(dict.fromkeys(study.source_of(name) for name in variant.made_of))
