"""Export of a trained run, or of one of its experts, to a format that other software loads."""

from pathlib import Path

from moeframe.errors import InputError
from moeframe.interfaces.exporter import Exporter, TrainedModel
from moeframe.plugin.registry import Registry
from moeframe.runs.loaded import load
from moeframe.storage.atomic import storage_errors_at
from moeframe.storage.results import read_json
from moeframe.storage.run_folder import RunFolder


def export(
    folder: str | Path,
    out: str | Path,
    *,
    into: str,
    expert: int | None = None,
    seed: int | None = None,
) -> str:
    """Export the trained model of a run, or one of its experts, and return the code that loads it.

    `into` names an installed exporter, a format, `out` a folder that is not there yet or empty. Raises InputError, or
    RunFolderError, CheckpointError, PluginError.
    """
    place, target = RunFolder(Path(folder)), Path(out)
    exporter_class = Registry.installed().get(Exporter, into)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: already exists and is not empty; choose a new folder or empty this one")
    loaded = load(folder, seed, device="cpu")
    if expert is not None and not 0 <= expert < len(loaded.experts):
        raise InputError(
            f"unknown expert {expert}; '{loaded.spec.name}' has the experts 0 .. {len(loaded.experts) - 1}"
        )
    model = TrainedModel(
        name=loaded.spec.name,
        denoiser=loaded.denoiser,
        experts=tuple(loaded.experts),
        schedule=loaded.schedule,
        sampler=loaded.sampler,
        image=loaded.assembly.image,
        seed=loaded.seed,
        spec=loaded.spec.dump(),
        results=read_json(place.results) if place.results.exists() else {},
        card=read_json(place.card) if place.card.exists() else {},
    )
    exporter = exporter_class(exporter_class.Config.model_validate({"type": into}))
    with storage_errors_at(target):
        target.mkdir(parents=True, exist_ok=True)
    if expert is None:
        return exporter.export_merged(model, target)
    return exporter.export_expert(model, expert, target)
