"""What a run is about to do, in three lines: its data, the files that it does not use, its experts."""

import itertools
import math
from collections.abc import Iterator

from moeframe.assembly import Assembly
from moeframe.interfaces.expert import Expert


def announcement(assembly: Assembly) -> list[str]:
    """Images per split and split rule; files ignored by extension; experts with source and log-SNR range."""
    dataset = assembly.dataset
    n_train, n_test = len(assembly.train), len(assembly.test)
    skipped = ", ".join(f"{n:,} {kind}" for kind, n in dataset.ignored_files.items())
    return [
        f"data: {dataset.name()}, {n_train:,} training and {n_test:,} test images; split: {dataset.split_rule}",
        f"files ignored: {skipped or 'none'}",
        f"experts: {'; '.join(_experts(assembly))}",
    ]


def _experts(assembly: Assembly) -> Iterator[str]:
    """Neighbours that are described alike are counted together."""
    described = []
    for expert in assembly.model.experts:
        assert isinstance(expert, Expert)
        described.append(_described(expert))
    for text, alike in itertools.groupby(described):
        n = len(list(alike))
        yield text if n == 1 else f"{n} x {text}"


def _described(expert: Expert) -> str:
    origin = expert.provenance()
    source = origin.get("path") or origin.get("source", "new weights")
    low, high = expert.log_snr_range
    known = f", log-SNR {low:.4g} to {high:.4g}" if math.isfinite(low) or math.isfinite(high) else ""
    return f"{expert.name()} ({source}{known})"
