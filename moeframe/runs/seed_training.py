"""Training one seed in its run folder: resuming, logging, validating and saving checkpoints on the way."""

import dataclasses
from collections.abc import Callable, Iterator

from moeframe.assembly import Assembly
from moeframe.errors import NonFiniteError
from moeframe.progress import Watcher
from moeframe.report.run.seed_folder import EVENTS
from moeframe.runs.loaded import error_prefix
from moeframe.storage import checkpoint
from moeframe.storage.atomic import write_file
from moeframe.storage.checkpoint import Snapshot
from moeframe.storage.run_folder import EventLog, RunFolder
from moeframe.training.calibration import calibration_errors
from moeframe.training.steps import StepLog
from moeframe.training.trainer import Trainer
from moeframe.training.validation import measure_validation


class SeedTraining:
    """A trainer, and the files of its seed: checkpoints and events.jsonl."""

    def __init__(self, trainer: Trainer, folder: RunFolder, watcher: Watcher):
        self.trainer = trainer
        self.seed = trainer.assembly.streams.seed
        self.checkpoints = folder.checkpoints(self.seed)
        self.events = folder.seed(self.seed) / EVENTS
        self._watcher = watcher

    @property
    def warm_start_steps(self) -> int:
        """Last step of the warm start."""
        return self.trainer.assembly.spec.warm_start_steps

    @property
    def has_checkpoint(self) -> bool:
        """Whether this seed was trained before, at least in part."""
        return checkpoint.latest(self.checkpoints) is not None

    def resume(self) -> None:
        """Continue from the newest checkpoint, if any. Raises CheckpointError naming a file of another model."""
        newest = checkpoint.latest(self.checkpoints)
        if newest is not None:
            snapshot = checkpoint.load(newest)
            with error_prefix(newest):
                self.trainer.restore(snapshot)
        self._log()

    def warm_start(self) -> None:
        """Phase 1: every expert learns from its own slice."""
        self._train("warm start", 0, self.warm_start_steps, self.trainer.warm_start)

    def begin_with(self, snapshot: Snapshot, events: bytes) -> None:
        """Take over the end of another run's equal warm start, and its log."""
        self.trainer.load_warm_start(snapshot)
        write_file(self.events, events)
        self._validate("warm_start", self._log())

    def train_jointly(self) -> None:
        """Phase 2: experts and gate learn together from all the data."""
        self._train("joint training", self.warm_start_steps, self.trainer.config.steps, self.trainer.train_jointly)

    def finish(self) -> Assembly:
        """Calibrate a gate that needs it and return the assembly with the model that is evaluated."""
        trainer = self.trainer
        model = trainer.averaged if trainer.assembly.spec.evaluation.weights == "ema" else trainer.model
        gates = [each.gate for each in (trainer.model, trainer.averaged) if each.gate is not None]
        calibrating = any(gate.needs_calibration for gate in gates)
        if calibrating:
            self._watcher.begin(f"seed {self.seed}: comparing experts", 1)
            errors = calibration_errors(trainer.assembly, model.eval())
            for gate in gates:
                gate.calibrate(errors)
            places = ", ".join(f"{value:.3f}" for value in gates[0].switches) or "none"
            self._watcher.advance(f"switches at log-SNR {places}")
        if calibrating or checkpoint.latest(self.checkpoints) is None:
            checkpoint.save(self.checkpoints, trainer.snapshot())
        model.zero_grad(set_to_none=True)
        return dataclasses.replace(trainer.assembly, model=model)

    def _train(self, title: str, begin: int, end: int, phase: Callable[[], Iterator[StepLog]]) -> None:
        """Run one phase to its end. Raises NonFiniteError naming the part; the state before that step is kept."""
        if self.trainer.step >= end:
            return
        events = self._log()
        self._watcher.begin(f"seed {self.seed}: {title}", end - begin, self.trainer.step - begin)
        try:
            for log in phase():
                self._watcher.advance(self._record(log, events, last=log.step == end))
        except NonFiniteError as error:
            kept = checkpoint.save(self.checkpoints, self.trainer.snapshot())
            raise NonFiniteError(f"{error}; the state before this step is kept: {kept}") from None

    def _log(self) -> EventLog:
        """The log, without lines of steps after the trainer's."""
        return EventLog(self.events, self.trainer.step)

    def _record(self, log: StepLog, events: EventLog, *, last: bool) -> str:
        """Log, validate and save what is due after a step; return the newest figure."""
        config, note = self.trainer.config, ""
        if last or log.step == 1 or log.step % config.log_every == 0:
            events.write("train", dataclasses.asdict(log))
            note = f"{next(iter(log.terms.values())).value:.3f} bits/dim"
        if last or log.step % config.validation_every == 0:
            note = f"{self._validate(log.phase, events):.3f} bits/dim (validation)"
        if last or log.step % config.checkpoint_every == 0:
            checkpoint.save(self.checkpoints, self.trainer.snapshot())
        return note

    def _validate(self, phase: str, events: EventLog) -> float:
        measured = measure_validation(self.trainer.assembly, self.trainer.averaged, self.trainer.step)
        events.write("validation", {"phase": phase, **dataclasses.asdict(measured)})
        return measured.bits_per_dim
