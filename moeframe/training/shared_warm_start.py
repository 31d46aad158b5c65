"""Warm starts that several variants of a study share.

In the warm start each expert learns from its slice alone and the gate learns nothing, and every draw is addressed by
seed and step. Variants that differ only in gate, regularisers, sampler or metrics share it, bit for bit.
"""

import json
from pathlib import Path

from moeframe.assembly import Assembly
from moeframe.storage import atomic, checkpoint
from moeframe.storage.atomic import write_file
from moeframe.training.trainer import Trainer

_WITHOUT_EFFECT = (
    "workers",
    "log_every",
    "validation_every",
    "validation_images",
    "checkpoint_every",
    "calibration_images",
)
"""Settings of training that do not change the weights."""


def key_of(assembly: Assembly) -> str:
    """Hash of everything that the warm start depends on: equal keys mean equal warm starts."""
    spec = assembly.spec.dump()
    training = {key: value for key, value in spec["training"].items() if key not in _WITHOUT_EFFECT}
    depends = {
        **{section: spec[section] for section in ("dataset", "slicer", "schedule", "trunk", "experts", "device")},
        "training": training,
        "losses": [loss.config.model_dump(mode="json") for loss in assembly.losses if not loss.NEEDS_GATE],
        "seed": assembly.streams.seed,
    }
    return atomic.key_of(depends)


def keep(trainer: Trainer, place: Path, events: Path) -> None:
    """Leave the state at the end of the warm start, and the log of its training steps, in the folder `place`."""
    lines = [line for line in events.read_bytes().splitlines(keepends=True) if json.loads(line)["kind"] == "train"]
    write_file(place / events.name, b"".join(lines))  # without validation, which depends on this run's gate
    checkpoint.save(place, trainer.warm_start_state())
