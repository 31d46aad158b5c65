"""Conflicts between sections of a spec that are each valid on their own."""

import math
from collections.abc import Iterator
from typing import Any

from moeframe.errors import SpecPath, SpecProblem
from moeframe.interfaces.component import Component, SpecFacts
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.trunk import Trunk
from moeframe.plugin.registry import Registry
from moeframe.spec.schema import LIST_SECTIONS, SECTIONS, RunSpec


def conflicts(bound: dict[str, Any], spec: RunSpec | None, registry: Registry) -> Iterator[SpecProblem]:
    """Conflicts between sections that are each valid on their own, as far as earlier problems let us see."""
    configs = dict(_component_configs(bound))
    experts = [config.copies for config in configs.values() if isinstance(config, Expert.Config)]
    if experts and len(experts) == len(bound["experts"]):
        k = sum(experts)
        if k > 1 and bound.get("gate") is None:
            yield SpecProblem(
                ("gate",), f"{k} experts need a gate: add a section 'gate', for example  gate: {{type: softmax}}"
            )
        if k > 1 and bound.get("slicer") is None and spec is not None and spec.warm_start_steps > 0:
            yield SpecProblem(
                ("slicer",),
                f"the warm start of {k} experts needs a slicer: add a section 'slicer', or set training.warm_start: 0",
            )
        facts = SpecFacts(
            n_experts=k,
            log_snr_range=_log_snr_range(bound.get("schedule"), registry),
            training_steps=0 if spec is None else spec.training.steps,
            has_trunk=isinstance(bound.get("trunk"), Trunk.Config),
        )
        for path, config in configs.items():
            for key, message in config.conflicts(facts):
                yield SpecProblem((*path, key), message)
    yield from _repetitions(configs)
    if spec is not None:
        yield from _untrainable(spec, registry)
    if spec is not None and _experts_learn_nothing(spec, registry):
        yield SpecProblem(("objective",), "no term trains the experts, all concern the gate; add one: {type: nll}")


def _log_snr_range(config: Any, registry: Registry) -> tuple[float, float]:
    if not isinstance(config, NoiseSchedule.Config):
        return (-math.inf, math.inf)
    schedule = registry.get(NoiseSchedule, config.type)(config)
    return (schedule.log_snr_min, schedule.log_snr_max)


def _untrainable(spec: RunSpec, registry: Registry) -> Iterator[SpecProblem]:
    """Settings that leave nothing to train, or freeze what another setting trains."""
    training = spec.training
    if spec.evaluation.offload and training.trainable == "all" and training.steps > 0:
        message = "experts that are trained stay on the device; set false, or training.trainable: gate or none"
        yield SpecProblem(("evaluation", "offload"), message)
    if training.trainable == "none" and training.steps > 0:
        message = f"nothing is trainable, so {training.steps} steps do nothing; set steps: 0, or trainable: gate or all"
        yield SpecProblem(("training", "steps"), message)
    if training.trainable != "gate":
        return
    if training.warm_start > 0:
        message = "the warm start trains the experts, which trainable: gate freezes; set warm_start: 0"
        yield SpecProblem(("training", "warm_start"), message)
    if spec.gate is None:
        yield SpecProblem(
            ("training", "trainable"), "the spec has no gate to train; add a section 'gate', or set all or none"
        )
    elif not registry.get(Gate, spec.gate.type).LEARNS:
        message = f"gate '{spec.gate.type}' has no parameters to train; use a gate that learns, or trainable: none"
        yield SpecProblem(("training", "trainable"), message)


def _repetitions(configs: dict[SpecPath, Component.Config]) -> Iterator[SpecProblem]:
    seen: set[tuple[str, str]] = set()
    for path, config in configs.items():
        if isinstance(config, Metric.Config):
            item, message = ("metric", config.key), f"a second metric is called '{config.key}'; give it its own 'label'"
        elif isinstance(config, Loss.Config):
            item, message = ("loss", config.type), f"a second loss '{config.type}'; name each loss once"
        else:
            continue
        if item in seen:
            yield SpecProblem(path, message)
        seen.add(item)


def _experts_learn_nothing(spec: RunSpec, registry: Registry) -> bool:
    gate_is_trained_alone = spec.gate is not None and spec.warm_start_steps == 0
    return not gate_is_trained_alone and all(registry.get(Loss, term.type).NEEDS_GATE for term in spec.objective)


def _component_configs(bound: dict[str, Any]) -> Iterator[tuple[SpecPath, Component.Config]]:
    for section in SECTIONS:
        if isinstance(bound.get(section), Component.Config):
            yield (section,), bound[section]
    for section in LIST_SECTIONS:
        items = bound.get(section)
        for i, config in enumerate(items if isinstance(items, list) else []):
            if isinstance(config, Component.Config):
                yield (section, i), config
