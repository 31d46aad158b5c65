"""The warm start, done once for all variants of a study whose experts begin alike.

In phase 1 each expert learns from its slice alone and the gate from nothing, and every draw is addressed by seed and
step. Variants that differ in gate, regularisers, sampler or metrics therefore have the same phase 1, bit for bit.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moeframe.assembly import Assembly
from moeframe.storage import atomic, checkpoint
from moeframe.storage.atomic import locked, write_file
from moeframe.training.trainer import Trainer

_BESIDES = ("workers", "log_every", "validation_every", "validation_images", "checkpoint_every", "calibration_images")
"""Settings of training that leave the weights as they are."""


def key_of(assembly: Assembly) -> str:
    """Equal for two runs whose phase 1 is the same: hash of everything that it depends on."""
    spec = assembly.spec.dump()
    training = {key: value for key, value in spec["training"].items() if key not in _BESIDES}
    depends = {
        **{section: spec[section] for section in ("dataset", "slicer", "schedule", "trunk", "experts", "device")},
        "training": training,
        "losses": [loss.config.model_dump(mode="json") for loss in assembly.losses if not loss.NEEDS_GATE],
        "seed": assembly.streams.seed,
    }
    return atomic.key_of(depends)


@contextmanager
def shared(trainer: Trainer, folder: Path) -> Iterator[bool]:
    """Whether the trainer was brought to the end of phase 1 by what another run left; what runs within is waited for.

    One process at a time works on one phase 1; the others wait and take over what it leaves through `keep`.
    """
    place = folder / key_of(trainer.assembly)
    with locked(place):
        found = checkpoint.latest(place)
        if found is not None:
            trainer.load_warm_start(checkpoint.load(found))
        yield found is not None


def keep(trainer: Trainer, folder: Path, events: Path) -> None:
    """Leave the state at the end of phase 1 for the other variants, and what was logged on the way there."""
    place = folder / key_of(trainer.assembly)
    lines = [line for line in events.read_bytes().splitlines(keepends=True) if json.loads(line)["kind"] == "train"]
    write_file(place / events.name, b"".join(lines))  # not what was held out: that was measured under this run's gate
    checkpoint.save(place, trainer.warm_start_state())


def take_events(trainer: Trainer, folder: Path, events: Path) -> None:
    """Begin a run's log with the training of the phase 1 that it took over."""
    write_file(events, (folder / key_of(trainer.assembly) / events.name).read_bytes())
