"""Running a spec, in the order of the article (docs/references.md): `train_and_evaluate` names every stage."""

import gc
from collections.abc import Sequence
from pathlib import Path

from moeframe.assembly import Assembly, assemble
from moeframe.data.splits import open_splits
from moeframe.errors import InputError
from moeframe.plugin.registry import Registry
from moeframe.progress import Silent, Watcher
from moeframe.runs.announcement import announcement
from moeframe.runs.data_card import write_data_card
from moeframe.runs.environment import write_environment
from moeframe.runs.measuring import evaluate_seed, summarise
from moeframe.runs.seed_training import SeedTraining
from moeframe.runs.shared_work import SharedWork
from moeframe.runs.slicing import write_slices
from moeframe.spec.loader import load_spec
from moeframe.spec.schema import RunSpec
from moeframe.storage.results import Results
from moeframe.storage.run_folder import RunFolder
from moeframe.training.trainer import Trainer


def run(
    spec: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
    shared: SharedWork | None = None,
) -> Results:
    """Run a spec file, or finish an interrupted run of it; return what results.json holds.

    `overrides` are `path=value` texts, `out` replaces runs/NAME, `fresh` deletes an earlier run in that folder, and
    `shared` is the work that runs of one study have in common. Raises a MoeframeError that says what to fix.
    """
    registry = Registry.installed()
    resolved = load_spec(spec, registry, overrides)
    return train_and_evaluate(resolved, registry, out, fresh=fresh, watcher=watcher, shared=shared)


def merge(
    spec: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Results:
    """Merge finished experts and evaluate the merge; the experts keep their weights, the gate alone may be trained.

    Raises InputError for a spec that trains experts, and whatever `run` raises.
    """
    registry = Registry.installed()
    resolved = load_spec(spec, registry, overrides)
    if resolved.training.steps > 0 and resolved.training.trainable == "all":
        raise InputError(
            f"{spec}: trains the experts for {resolved.training.steps} steps, but merge keeps their weights; set "
            "training.trainable: none, or gate to train the gate alone, or train everything with `moeframe run`"
        )
    return train_and_evaluate(resolved, registry, out, fresh=fresh, watcher=watcher)


def train_and_evaluate(
    spec: RunSpec,
    registry: Registry,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    watcher: Watcher | None = None,
    shared: SharedWork | None = None,
) -> Results:
    """Do every stage of every unfinished seed: data, slices, warm start, joint training, gate, evaluation, report."""
    watcher, shared = watcher or Silent(), shared or SharedWork()
    folder = RunFolder(run_folder_of(spec.name, out))
    with folder.claimed():
        folder.check_resumable(spec, fresh=fresh)
        unfinished = [seed for seed in spec.seeds if not folder.metrics(seed).exists()]
        if unfinished:  # else the figures are of the machine that measured them
            write_environment(folder, spec.device)
        splits = open_splits(spec, registry) if unfinished else None
        for seed in unfinished:
            assert splits is not None
            slices = shared.slices(spec, registry, seed, splits)
            assembly = assemble(spec, registry, seed, splits, slices)
            if seed == unfinished[0]:
                for line in announcement(assembly):
                    watcher.say(line)
            describe_data(folder, assembly, shared, watcher)
            training = SeedTraining(Trainer(assembly), folder, watcher)
            training.resume()
            shared.load_weights(training)
            shared.warm_start(training)
            training.train_jointly()
            assembly = training.finish()
            del training  # and with it gradients, optimiser moments and the weights that are not evaluated
            gc.collect()
            evaluate_seed(folder.seed(seed), assembly, watcher)
            del assembly
        return summarise(folder, spec)


def run_folder_of(name: str, out: str | Path | None) -> Path:
    """Return `out`, or runs/NAME below the working directory."""
    return Path("runs") / name if out is None else Path(out)


def describe_data(folder: RunFolder, assembly: Assembly, shared: SharedWork, watcher: Watcher) -> None:
    """Write card.json once per run, and per seed what each slice holds."""
    if not folder.card.exists():
        watcher.begin("inspecting the data", 1)
        write_data_card(folder.path, assembly, shared.data_facts(assembly, folder.path))
        watcher.advance("card.json")
    if assembly.slices.slicer is not None:
        for warning in assembly.slices.warnings():
            watcher.warn(warning)
        seed_folder = folder.seed(assembly.streams.seed)
        write_slices(seed_folder, assembly.slices, assembly.train, assembly.image, assembly.streams)
