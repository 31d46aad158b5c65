"""Work that the runs of a study have in common: each piece is done once, by whichever run needs it first.

Every draw is addressed by seed and purpose, so what another run left equals what this run would compute, bit for bit.
A process that needs a piece waits while another one works on it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import Assembly
from moeframe.data.slices import Slices, build_slicer, cut_slices
from moeframe.data.splits import Splits
from moeframe.errors import RunFolderError
from moeframe.plugin.registry import Registry
from moeframe.runs.data_card import inspect_data
from moeframe.runs.seed_training import SeedTraining
from moeframe.spec.schema import RunSpec
from moeframe.storage import checkpoint
from moeframe.storage.atomic import key_of, locked, write_file
from moeframe.storage.results import read_json
from moeframe.storage.run_folder import CARD, LEAKS, RunFolder
from moeframe.training import shared_warm_start


@dataclass(frozen=True)
class SharedWork:
    """Where runs leave work for each other; by default nowhere, and every run does its own."""

    folder: Path | None = None
    """Holds data-KEY, slices-KEY and warm-start-KEY, each named by a hash of the settings that it depends on."""
    weights_of: Path | None = None
    """A finished run with the same training, whose weights are evaluated under this run's gate and settings."""

    def slices(self, spec: RunSpec, registry: Registry, seed: int, splits: Splits) -> Slices:
        """Return the slices of a seed. Raises what `cut_slices` raises."""
        if self.folder is None or spec.slicer is None:
            return cut_slices(spec, registry, seed, splits)
        dump = spec.dump()
        place = self.folder / f"slices-{key_of(dump['dataset'], dump['slicer'], spec.n_experts, seed)}"
        with locked(place):
            kept = place / "slices.json"
            if kept.exists():
                found, slicer = read_json(kept), build_slicer(spec, registry, seed)
                assert slicer is not None
                slicer.restore(found["state"])
                return Slices(slicer, torch.tensor(found["train"]), torch.tensor(found["test"]), slicer.n_slices)
            slices = cut_slices(spec, registry, seed, splits)
            assert slices.slicer is not None
            found = {"state": slices.slicer.state(), "train": slices.train.tolist(), "test": slices.test.tolist()}
            write_file(kept, json.dumps(found).encode())
            return slices

    def data_facts(self, assembly: Assembly, folder: Path) -> dict[str, Any]:
        """Return what the data card says about the data, and write its picture of duplicates into `folder`."""
        if self.folder is None:
            return inspect_data(assembly, folder)
        place = self.folder / f"data-{key_of(assembly.spec.dump()['dataset'])}"
        with locked(place):
            if not (place / CARD).exists():
                write_file(place / CARD, json.dumps(inspect_data(assembly, place)).encode())
        if (place / LEAKS).exists():
            write_file(folder / LEAKS, (place / LEAKS).read_bytes())
        facts: dict[str, Any] = read_json(place / CARD)
        return facts

    def warm_start(self, training: SeedTraining) -> None:
        """Bring a training to the end of its warm start, from another run's equal one where there is one."""
        if self.folder is None or training.trainer.step >= training.warm_start_steps:
            training.warm_start()
            return
        place = self.folder / f"warm-start-{shared_warm_start.key_of(training.trainer.assembly)}"
        with locked(place):
            kept = checkpoint.latest(place)
            if kept is not None:
                training.begin_with(checkpoint.load(kept), (place / training.events.name).read_bytes())
            else:
                training.warm_start()
                shared_warm_start.keep(training.trainer, place, training.events)

    def load_weights(self, training: SeedTraining) -> None:
        """Give a training that has no checkpoint the weights of `weights_of`, and keep them as its own checkpoint.

        Raises RunFolderError where that run is not finished.
        """
        if self.weights_of is None or training.has_checkpoint:
            return
        seed, steps = training.seed, training.trainer.config.steps
        last = checkpoint.latest(RunFolder(self.weights_of).checkpoints(seed))
        snapshot = None if last is None else checkpoint.load(last)
        if snapshot is None or snapshot.step != steps:
            raise RunFolderError(
                f"{self.weights_of}: has no checkpoint of seed {seed} after {steps} steps; finish that run first, or "
                "name the folder that it was trained in if this one holds its results only"
            )
        checkpoint.save(training.checkpoints, snapshot)
        training.resume()
