"""A run as a straight line: spec -> parts -> warm start -> joint training -> evaluation -> results and report."""

import dataclasses
import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeframe.assembly import Assembly, assemble, build_dataset
from moeframe.errors import InputError, NonFiniteError, RunFolderError
from moeframe.evaluation.diagnostics import write_diagnostics
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent, Watcher
from moeframe.report.run.page import write_report
from moeframe.report.run.seed_folder import EVENTS
from moeframe.runs.data_card import write_data_card
from moeframe.runs.environment import describe_environment
from moeframe.runs.loaded import error_prefix, load_seed
from moeframe.runs.slicing import write_slices
from moeframe.spec.loader import Override, load_spec
from moeframe.spec.schema import RunSpec
from moeframe.storage import checkpoint
from moeframe.storage.atomic import write_file
from moeframe.storage.results import Results, combine_seeds, read_json, read_metrics, write_results
from moeframe.storage.run_folder import MEASURING, EventLog, RunFolder, spec_changes
from moeframe.training import shared_warm_start
from moeframe.training.calibration import calibration_errors
from moeframe.training.trainer import StepLog, Trainer
from moeframe.training.validation import measure_validation


@dataclass(frozen=True)
class Borrowed:
    """Work of other runs of a study that a run need not do again."""

    phase_one: Path | None = None
    """Folder of shared warm starts."""
    weights_of: Path | None = None
    """A finished run of the same training, whose weights are measured under this run's gate and settings."""
    data: Path | None = None
    """Folder of what the data was found to hold, and of slices."""


NOTHING = Borrowed()


def run(
    spec: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
    borrowed: Borrowed = NOTHING,
) -> Results:
    """Do everything that a spec file says, or finish what an interrupted run of it left; returns results.json.

    `overrides` are `path=value` texts, `out` replaces runs/NAME, `fresh` deletes an earlier run in that folder,
    `borrowed` is what a study has done already. Raises a MoeframeError that says what to mend.
    """
    registry, watcher = Registry.installed(), watcher or Silent()
    resolved = load_spec(spec, registry, overrides)
    return _carry_out(resolved, registry, out, fresh=fresh, watcher=watcher, borrowed=borrowed)


def merge(
    spec: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Results:
    """Merge finished experts and measure what came of it; the experts stay as they are, a gate may be trained alone.

    The run folder is that of `run`. Raises InputError for a spec that trains experts, and what `run` raises.
    """
    registry = Registry.installed()
    resolved = load_spec(spec, registry, overrides)
    if resolved.training.steps > 0 and resolved.training.trainable == "all":
        raise InputError(
            f"{spec}: trains the experts for {resolved.training.steps} steps, and merge leaves them as they are; set "
            "training.trainable: none, or gate to train the gate alone, or train everything with `moeframe run`"
        )
    return _carry_out(resolved, registry, out, fresh=fresh, watcher=watcher or Silent())


def _carry_out(
    resolved: RunSpec,
    registry: Registry,
    out: str | Path | None,
    *,
    fresh: bool,
    watcher: Watcher,
    borrowed: Borrowed = NOTHING,
) -> Results:
    folder = RunFolder(run_folder_of(resolved.name, out))
    with folder.claimed():
        folder.check_resumable(resolved, fresh=fresh)
        environment = describe_environment(resolved.device)
        write_file(folder.environment, _json(environment))
        unfinished = [seed for seed in resolved.seeds if not folder.metrics(seed).exists()]
        dataset = build_dataset(resolved, registry) if unfinished else None
        for seed in unfinished:
            # The trainer is gone when the model is measured, and with it moments, gradients and the other weights.
            assembly = _train_seed(
                folder, assemble(resolved, registry, seed, dataset, borrowed.data), watcher, borrowed
            )
            gc.collect()
            _evaluate_seed(folder.seed(seed), assembly, watcher)
            del assembly
        return _summarise(folder, resolved)


def run_folder_of(name: str, out: str | Path | None) -> Path:
    """runs/NAME below the working directory, unless another folder is named."""
    return Path("runs") / name if out is None else Path(out)


def _train_seed(folder: RunFolder, assembly: Assembly, watcher: Watcher, borrowed: Borrowed) -> Assembly:
    """The assembly with the model that is to be measured, trained to the end and kept."""
    seed = assembly.streams.seed
    if not folder.card.exists():
        watcher.begin("looking through the data", 1)
        write_data_card(folder.path, assembly, borrowed.data)
        watcher.advance("card.json")
    if assembly.slices.slicer is not None:
        for warning in assembly.slices.warnings():
            watcher.warn(warning)
        write_slices(folder.seed(seed), assembly.slices, assembly.train, assembly.image, assembly.streams)
    trainer = Trainer(assembly)
    if borrowed.weights_of is not None:
        _take_weights(borrowed.weights_of, folder, assembly)
    train(trainer, folder, seed, watcher, borrowed.phase_one)
    model = trainer.averaged if assembly.spec.evaluation.weights == "ema" else trainer.model
    _finish_model(trainer, model, folder, watcher)
    model.zero_grad(set_to_none=True)
    return dataclasses.replace(assembly, model=model)


def _take_weights(source: Path, folder: RunFolder, assembly: Assembly) -> None:
    """Copy the last checkpoint of another run where this one has none. Raises RunFolderError where that is not done."""
    seed, steps = assembly.streams.seed, assembly.spec.training.steps
    if checkpoint.latest(folder.checkpoints(seed)) is not None:
        return
    last = checkpoint.latest(RunFolder(source).checkpoints(seed))
    snapshot = None if last is None else checkpoint.load(last)
    if snapshot is None or snapshot.step != steps:
        raise RunFolderError(
            f"{source}: has no checkpoint of seed {seed} after {steps} steps; finish that run first, or use the folder "
            "that it was trained in where only its results were kept"
        )
    checkpoint.save(folder.checkpoints(seed), snapshot)


def train(
    trainer: Trainer, folder: RunFolder, seed: int, watcher: Watcher, phase_one_folder: Path | None = None
) -> None:
    """Train to the end from the newest checkpoint, logging, measuring and saving on the way.

    With a folder of shared warm starts phase 1 is taken from there, or left there for others. Raises NonFiniteError
    naming the part at fault; the state before that step is saved first.
    """
    newest = checkpoint.latest(folder.checkpoints(seed))
    if newest is not None:
        snapshot = checkpoint.load(newest)
        with error_prefix(newest):
            trainer.restore(snapshot)
    if phase_one_folder is not None and trainer.step < trainer.assembly.spec.warm_start_steps:
        with shared_warm_start.shared(trainer, phase_one_folder) as taken:
            events = folder.seed(seed) / EVENTS
            if taken:
                shared_warm_start.take_events(trainer, phase_one_folder, events)
                _validate(trainer, "warm_start", EventLog(events, trainer.step))
            else:
                _train(trainer, folder, seed, watcher, until=trainer.assembly.spec.warm_start_steps)
                shared_warm_start.keep(trainer, phase_one_folder, events)
    _train(trainer, folder, seed, watcher, until=trainer.config.steps)


def _train(trainer: Trainer, folder: RunFolder, seed: int, watcher: Watcher, *, until: int) -> None:
    events = EventLog(folder.seed(seed) / EVENTS, trainer.step)
    begin = 0
    for title, end, phase in (
        ("warm start", trainer.assembly.spec.warm_start_steps, trainer.warm_start),
        ("joint training", trainer.config.steps, trainer.train_jointly),
    ):
        if trainer.step < end <= until:
            watcher.begin(f"seed {seed}: {title}", end - begin, trainer.step - begin)
            try:
                for log in phase():
                    watcher.advance(_record(trainer, log, events, folder.checkpoints(seed), last=log.step == end))
            except NonFiniteError as error:
                kept = checkpoint.save(folder.checkpoints(seed), trainer.snapshot())
                raise NonFiniteError(f"{error}; the state before this step is kept: {kept}") from None
        begin = end


def _finish_model(trainer: Trainer, model: MergedDenoiser, folder: RunFolder, watcher: Watcher) -> None:
    """Calibrate the gate that asks for it by the model's experts, and keep a model that no training step kept."""
    seed = trainer.assembly.streams.seed
    gates = [each.gate for each in (trainer.model, trainer.averaged) if each.gate is not None]
    calibrating = any(gate.needs_calibration for gate in gates)
    if calibrating:
        watcher.begin(f"seed {seed}: comparing experts", 1)
        errors = calibration_errors(trainer.assembly, model.eval())
        for gate in gates:
            gate.calibrate(errors)
        watcher.advance(f"switches at log-SNR {', '.join(f'{value:.3f}' for value in gates[0].switches) or 'none'}")
    if calibrating or checkpoint.latest(folder.checkpoints(seed)) is None:
        checkpoint.save(folder.checkpoints(seed), trainer.snapshot())


def _record(trainer: Trainer, log: StepLog, events: EventLog, checkpoints: Path, *, last: bool) -> str:
    """Write what is due after a step; returns the figure worth showing."""
    config = trainer.config
    note = ""
    if last or log.step == 1 or log.step % config.log_every == 0:
        events.write("train", dataclasses.asdict(log))
        note = f"{next(iter(log.terms.values())).value:.3f} bits/dim"
    if last or log.step % config.validation_every == 0:
        note = f"{_validate(trainer, log.phase, events):.3f} bits/dim held out"
    if last or log.step % config.checkpoint_every == 0:
        checkpoint.save(checkpoints, trainer.snapshot())
    return note


def _validate(trainer: Trainer, phase: str, events: EventLog) -> float:
    measured = measure_validation(trainer.assembly, trainer.averaged, trainer.step)
    events.write("validation", {"phase": phase, **dataclasses.asdict(measured)})
    return measured.bits_per_dim


def _evaluate_seed(folder: Path, assembly: Assembly, watcher: Watcher) -> None:
    evaluation = ModelEvaluation(assembly, assembly.model, folder)
    watcher.begin(f"seed {assembly.streams.seed}: evaluation", len(assembly.metrics) + 1)
    entries = {metric.config.key: dict[str, object]() for metric in assembly.metrics}  # in the order of the spec
    # What looks at the machine comes first, before feature networks and samples take memory.
    for metric in sorted(assembly.metrics, key=lambda metric: metric.DETERMINISTIC):
        entries[metric.config.key] = measure(metric, evaluation)
        watcher.advance(metric.config.key)
    write_diagnostics(folder, assembly, evaluation)
    watcher.advance("pictures")
    # Last, because its presence says that the seed is complete.
    write_file(folder / "metrics.json", _json(entries))


def _summarise(folder: RunFolder, spec: RunSpec) -> Results:
    per_seed = {seed: read_metrics(folder.metrics(seed)) for seed in spec.seeds}
    environment = json.loads(folder.environment.read_bytes())
    results = combine_seeds(spec.name, spec.hash(), environment, per_seed)
    write_results(folder.results, results)
    write_report(folder.path)
    return results


# --- finished runs ----------------------------------------------------------------------------------------------------


def evaluate(folder: str | Path, *, overrides: Sequence[str] = (), watcher: Watcher | None = None) -> Results:
    """Measure a trained run again; `overrides` may change how it is measured, never what was trained.

    results.json, report and the folder's spec.yaml are rewritten. Raises RunFolderError, CheckpointError or SpecError.
    """
    registry = Registry.installed()
    place = RunFolder(Path(folder))
    place.read_spec()
    # resolved anew: a setting that is younger than the run has its default there too
    trained = load_spec(place.spec, registry).dump()
    spec = load_spec(place.spec, registry, overrides)
    others = [change for change in spec_changes(trained, spec.dump()) if not change.startswith(MEASURING)]
    if others:
        raise RunFolderError(f"{place.path}: {'; '.join(others)}: evaluate can change {', '.join(MEASURING)} only")
    with place.claimed():
        place.forget_sweep()
        for seed in spec.seeds:
            loaded = load_seed(place, spec, registry, seed)
            assembly = dataclasses.replace(loaded.assembly, model=loaded.denoiser)
            _evaluate_seed(place.seed(seed), assembly, watcher or Silent())
        place.write_spec(spec)
        write_file(place.environment, _json(describe_environment(spec.device)))
        return _summarise(place, spec)


def measure_missing(
    folder: str | Path, metrics: Sequence[Mapping[str, Any]], watcher: Watcher | None = None
) -> Results:
    """Measure of a trained run what it lacks of `metrics`, as settings; what was measured with the same stays as it is.

    Metrics that are not among them stay too; those for which weights or packages were missing are tried again. Results,
    report and the folder's spec.yaml are rewritten; the environment is that of the run, and a figure that another one
    measured says so. Raises what `evaluate` raises.
    """
    registry, watcher = Registry.installed(), watcher or Silent()
    place = RunFolder(Path(folder))
    place.read_spec()
    then = {metric.key: metric.model_dump(mode="json") for metric in load_spec(place.spec, registry).metrics}
    wanted = load_spec(place.spec, registry, [Override("metrics", list(map(dict, metrics)), str(place.spec))]).metrics
    asked = {metric.key: metric.model_dump(mode="json") for metric in wanted}
    together = list({**asked, **then, **asked}.values())  # in the order asked for, then what was there before
    spec = load_spec(place.spec, registry, [Override("metrics", together, str(place.spec))])
    same = {metric.key for metric in spec.metrics if then.get(metric.key) == metric.model_dump(mode="json")}
    with place.claimed():
        then_with, now = read_json(place.environment), describe_environment(spec.device)
        differently = {name: value for name, value in now.items() if then_with.get(name) != value}
        for seed in spec.seeds:
            loaded, entries = load_seed(place, spec, registry, seed), dict(read_metrics(place.metrics(seed)))
            evaluation = ModelEvaluation(loaded.assembly, loaded.denoiser, place.seed(seed))
            there = {key for key in same & set(entries) if not entries[key].get("missing")}
            lacking = [metric for metric in loaded.assembly.metrics if metric.config.key not in there]
            watcher.begin(f"seed {seed}: evaluation", len(lacking))
            for metric in lacking:
                entry = measure(metric, evaluation)
                if "how" in entry and differently:
                    entry["how"] = {**entry["how"], "measured_with": differently}
                entries[metric.config.key] = entry
                watcher.advance(metric.config.key)
            ordered = {metric.config.key: entries[metric.config.key] for metric in loaded.assembly.metrics}
            write_file(place.metrics(seed), _json(ordered))
        place.write_spec(spec)
        return _summarise(place, spec)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
