"""What a switch between two experts costs and gains wherever it is put: bits/dim without sampling, quality by sampling.

The bound is additive over log-SNR, so one pass of each expert over the test images gives bits/dim for every η.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from moeframe.calibration import measured_errors
from moeframe.errors import InputError
from moeframe.evaluation import ModelEvaluation, measure
from moeframe.interfaces.gate import ExpertErrors
from moeframe.interfaces.metric import Metric
from moeframe.likelihood.bound import Bound, EndTerms, end_terms, standard_error
from moeframe.likelihood.switching import error_curves, switched_bits
from moeframe.progress import Silent, Watcher
from moeframe.randomness import Trajectories
from moeframe.report.page import write_report
from moeframe.report.plots import SweepPoint, TradeOff, trade_off
from moeframe.run_folder import SWEEP, RunFolder
from moeframe.runs import LoadedRun, load
from moeframe.storage import write_file

CURVE_BINS = 24


def sweep(folder: str | Path, n: int, *, quality: str = "frechet", watcher: Watcher | None = None) -> TradeOff:
    """Put the switch of a merged run in n places across the schedule, and each expert alone beside them.

    Writes sweep.json and sweep.svg into the run folder and the plot into its report. Of several seeds the first is
    swept. `quality` names a metric of the run's spec. Raises InputError for a run that does not switch between two.
    """
    place, watcher = RunFolder(Path(folder)), watcher or Silent()
    with place.claimed():
        loaded = load(folder)
        metric = _metric(loaded, quality)
        models = _places(loaded, n)
        watcher.begin(f"sweep over {n} places of the switch", len(models) + 1)
        errors, ends = _test_errors(loaded)
        watcher.advance("bits/dim of every place")
        points, entries = [], []
        for name, threshold in models:
            bits, error = _bits_per_dim(errors, ends, threshold)
            if not math.isfinite(bits):
                continue  # an expert would be asked outside its range
            entry = _measured(loaded, metric, place.seed(loaded.seed) if name == "merge" else None, threshold)
            entries.append(entry)
            points.append((name, threshold, bits, error, entry.get("value")))
            watcher.advance()
        result = _trade_off(metric, points, entries, len(errors.log_snr), len(models), loaded.seed)
        content = {"schema_version": 1, "seed": loaded.seed, **result.model_dump(), **_curves(errors)}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        write_file(place.path / SWEEP[0], text.encode())
        write_file(place.path / SWEEP[1], (trade_off("sweep", result) + "\n").encode())
        write_report(place.path)
    return result


def unbeaten(figures: Sequence[tuple[float, float]]) -> list[bool]:
    """Which pairs no other is at least as good as in both and better than in one; smaller is better. The Pareto set.

    >>> unbeaten([(1.0, 3.0), (2.0, 2.0), (3.0, 3.0), (2.0, 2.0)])
    [True, True, False, True]
    """
    return [not any(a <= x and b <= y and (a, b) != (x, y) for a, b in figures) for x, y in figures]


def require_switch(loaded: LoadedRun) -> None:
    """Raise InputError unless the run switches between two experts."""
    if len(loaded.experts) != 2 or loaded.gate is None:
        raise InputError(
            f"a sweep moves the switch between two experts; '{loaded.spec.name}' has {len(loaded.experts)}"
        )
    loaded.gate.switch_at((math.inf,))


def _places(loaded: LoadedRun, n: int) -> list[tuple[str, float]]:
    """Name and threshold of every model of the sweep; an expert alone is a switch that is never reached."""
    if len(loaded.experts) != 2 or loaded.gate is None:
        raise InputError(
            f"a sweep moves the switch between two experts; '{loaded.spec.name}' has {len(loaded.experts)}"
        )
    own = loaded.gate.switches
    loaded.gate.switch_at((math.inf,))  # says so, where the gate is of another kind
    low, high = loaded.schedule.log_snr_min, loaded.schedule.log_snr_max
    grid = [low + (high - low) * (i + 1) / (n + 1) for i in range(n)]
    alone = [("expert 0 alone", math.inf), ("expert 1 alone", -math.inf)]
    return [*alone, *(("merge", value) for value in own), *(("switch", value) for value in grid)]


def _metric(loaded: LoadedRun, key: str) -> Metric:
    found = {metric.config.key: metric for metric in loaded.assembly.metrics}
    if key not in found:
        raise InputError(
            f"the spec of '{loaded.spec.name}' has no metric '{key}' to measure quality with; its metrics are "
            f"{', '.join(found) or 'none'}: name one of them with --quality, or add it to the spec"
        )
    return found[key]


def _test_errors(loaded: LoadedRun) -> tuple[ExpertErrors, EndTerms]:
    """The diffusion term of each expert, and the two ends of the bound, of every test image."""
    a = loaded.assembly
    errors = measured_errors(a, loaded.denoiser, a.test, torch.arange(len(a.test)), "sweep/times")
    ends = []
    with torch.no_grad():
        for start in range(0, len(a.test), a.spec.evaluation.batch_size):
            numbers = torch.arange(start, min(len(a.test), start + a.spec.evaluation.batch_size))
            levels = a.test.images(numbers).long().to(a.device)
            ends.append(end_terms(a.schedule, a.image, levels, Trajectories(a.streams, numbers)))
    both = (torch.cat([part.reconstruction for part in ends]), torch.cat([part.prior for part in ends]))
    return errors, EndTerms(*both)


def _bits_per_dim(errors: ExpertErrors, ends: EndTerms, threshold: float) -> tuple[float, float]:
    """The bound of a switch and its standard error."""
    diffusion = switched_bits(errors, (threshold,))
    if not bool(diffusion.isfinite().all()):
        return math.inf, math.inf
    bound = Bound(ends.reconstruction, ends.prior, diffusion, errors.log_snr, network_calls=len(diffusion))
    return float(bound.total.mean()), standard_error([bound])


def _measured(loaded: LoadedRun, metric: Metric, folder: Path | None, threshold: float) -> dict[str, Any]:
    """The metric's entry for the model that switches there; samples are kept in `folder`, if there is one."""
    assert loaded.gate is not None
    loaded.gate.switch_at((threshold,))
    if folder is not None:
        return measure(metric, ModelEvaluation(loaded.assembly, loaded.denoiser, folder))
    with tempfile.TemporaryDirectory() as temporary:
        return measure(metric, ModelEvaluation(loaded.assembly, loaded.denoiser, Path(temporary)))


def _trade_off(
    metric: Metric,
    points: Sequence[tuple[str, float, float, float, float | None]],
    entries: Sequence[dict[str, Any]],
    n_images: int,
    n_models: int,
    seed: int,
) -> TradeOff:
    """The record of the sweep, with its unbeaten points marked."""
    measured = next((entry for entry in entries if "value" in entry), {})
    sign = -1 if measured.get("better") == "higher" else 1
    figures = [(bits, math.inf if value is None else sign * value) for _, _, bits, _, value in points]
    how = [
        f"Bits/dim: the continuous bound of {n_images} test images, one draw each, the same for all points, "
        "added up from the experts' own errors",
        f"quality: {metric.config.key} of n = {measured['n']}, sampled anew at each point from the same noise"
        if measured
        else f"{metric.config.key} was not measured: {next((entry['unavailable'] for entry in entries), 'no point')}",
        f"seed {seed}",
        *([str(measured["how"]["caution"])] if measured.get("how", {}).get("caution") else []),
    ]
    if all(name != "merge" for name, *_ in points):
        how.append("the merge's own gate uses one of the experts alone")
    if len(points) < n_models:
        how.append(f"{n_models - len(points)} points left out, where an expert would be asked outside its range")
    return TradeOff(
        quality_name=metric.config.key,
        quality_unit=str(measured.get("unit", "")),
        quality_better=str(measured.get("better", "lower")),
        how="; ".join(how) + ".",
        points=[
            SweepPoint(
                name=name,
                eta=threshold if math.isfinite(threshold) else None,
                bits_per_dim=bits,
                standard_error=error,
                quality=value,
                pareto=value is not None and best,
            )
            for (name, threshold, bits, error, value), best in zip(points, unbeaten(figures), strict=True)
        ],
    )


def _curves(errors: ExpertErrors) -> dict[str, Any]:
    """Mean diffusion term of each expert by log-SNR, bits/dim as if all of the range were alike; None if not asked."""
    log_snr, curves = error_curves(errors, CURVE_BINS)
    shown = [[value if math.isfinite(value) else None for value in curve] for curve in curves.T.tolist()]
    return {"errors_by_log_snr": {"log_snr": log_snr.tolist(), "experts": shown}}
