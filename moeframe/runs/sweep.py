"""What a switch between two experts costs and gains wherever it is put: bits/dim without sampling, quality by sampling.

The bound is additive over log-SNR, so one pass of each expert over the test images gives bits/dim for every η.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moeframe.errors import InputError, UnavailableError
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.interfaces.gate import ExpertErrors
from moeframe.interfaces.metric import Better, Metric
from moeframe.likelihood.bound import Bound, EndTerms, end_terms, standard_error
from moeframe.likelihood.probe import require_valid
from moeframe.likelihood.switching import error_curves, switched_bits
from moeframe.progress import Silent, Watcher
from moeframe.randomness import Trajectories
from moeframe.report.run.page import write_report
from moeframe.report.run.trade_off import SweepComparison, SweepPoint, SweptSeed, TradeOff, trade_off
from moeframe.runs.loaded import LoadedRun, load
from moeframe.stats.comparison import Comparison, adjust, compare_paired
from moeframe.stats.intervals import mean, t_interval
from moeframe.storage.atomic import write_file
from moeframe.storage.run_folder import SWEEP, RunFolder
from moeframe.training.calibration import measured_errors

CURVE_BINS = 24
ALONE = ("expert 0 alone", "expert 1 alone")
MERGE = "merge"


@dataclass(frozen=True)
class _Place:
    """One model of the sweep with its figures per seed; a single expert is a switch at plus or minus infinity."""

    name: str
    thresholds: list[float]
    bits: list[float]
    errors: list[float]
    entries: list[dict[str, Any]]


def sweep(folder: str | Path, n: int, *, quality: str = "frechet", watcher: Watcher | None = None) -> TradeOff:
    """Evaluate n switch points across the schedule, and each expert alone.

    Every seed of the run is swept; points are means over seeds, and the merge is compared with both experts seed by
    seed. Writes sweep.json and sweep.svg into the run folder and the plot into its report. `quality` names a metric of
    the run's spec. Raises InputError for a run that does not switch between two, or whose experts bound nothing.
    """
    place, watcher = RunFolder(Path(folder)), watcher or Silent()
    with place.claimed():
        seeds = load(folder).spec.seeds
        swept: list[_Place] = []
        curves = []
        for seed in seeds:
            loaded = load(folder, seed)
            metric = _metric(loaded, quality)
            models = _models(loaded, n)
            swept = swept or [_Place(name, [], [], [], []) for name, _ in models]
            watcher.begin(f"seed {seed}: sweep over {n} switch points", len(models) + 1)
            errors, ends = _test_errors(loaded)
            curves.append(_curves(errors))
            watcher.advance("bits/dim of every switch point")
            for model, (name, threshold) in zip(swept, models, strict=True):
                bits, error = _bits_per_dim(errors, ends, threshold)
                model.thresholds.append(threshold)
                model.bits.append(bits)
                model.errors.append(error)
                if math.isfinite(bits):  # else an expert would be evaluated outside its range
                    if name in ALONE:
                        _require_likelihood(loaded, name, threshold)
                    own = place.seed(seed) if name == MERGE else None
                    model.entries.append(_measured(loaded, metric, own, threshold))
                watcher.advance()
        result = _trade_off(metric, swept, seeds, len(errors.log_snr))
        content = {"schema_version": 2, **result.model_dump(), "errors_by_log_snr": curves}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        write_file(place.path / SWEEP[0], text.encode())
        write_file(place.path / SWEEP[1], (trade_off("sweep", result) + "\n").encode())
        write_report(place.path)
    return result


def unbeaten(figures: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which pairs are in the Pareto set; smaller is better in both.

    >>> unbeaten([(1.0, 3.0), (2.0, 2.0), (3.0, 3.0), (2.0, 2.0)])
    [True, True, False, True]
    """
    return [not any(a <= x and b <= y and (a, b) != (x, y) for a, b in figures) for x, y in figures]


def _models(loaded: LoadedRun, n: int) -> list[tuple[str, float]]:
    """Return name and switch point of every model of the sweep."""
    if len(loaded.experts) != 2 or loaded.gate is None:
        raise InputError(
            f"a sweep moves the switch between two experts; '{loaded.spec.name}' has {len(loaded.experts)}"
        )
    own = loaded.gate.switches[0] if loaded.gate.switches else _one_expert(loaded)
    loaded.gate.switch_at((math.inf,))  # raises for a gate of another kind
    low, high = loaded.schedule.log_snr_min, loaded.schedule.log_snr_max
    grid = [low + (high - low) * (i + 1) / (n + 1) for i in range(n)]
    alone = zip(ALONE, (math.inf, -math.inf), strict=True)
    return [*alone, (MERGE, own), *(("switch", value) for value in grid)]


def _one_expert(loaded: LoadedRun) -> float:
    """Return the switch point, plus or minus infinity, of a gate that uses one expert everywhere."""
    assert loaded.gate is not None
    z = torch.zeros(1, *loaded.assembly.image.tensor_shape, device=loaded.assembly.device)
    weights = loaded.gate.route(z, torch.full((1,), loaded.schedule.log_snr_min, device=z.device)).weights
    return math.inf if bool(weights[0, 0] > 0) else -math.inf


def _metric(loaded: LoadedRun, key: str) -> Metric:
    found = {metric.config.key: metric for metric in loaded.assembly.metrics}
    if key not in found:
        raise InputError(
            f"the spec of '{loaded.spec.name}' has no metric '{key}' for sample quality; choose one of "
            f"{', '.join(found) or 'none'} with --quality, or add the metric to the spec"
        )
    return found[key]


def _test_errors(loaded: LoadedRun) -> tuple[ExpertErrors, EndTerms]:
    """Return each expert's diffusion term and the two end terms of the bound, for every test image."""
    a = loaded.assembly
    # Neighbouring images of a folder should not get neighbouring noise levels.
    order = a.streams.permutation(len(a.test), "sweep/order")
    errors = measured_errors(a, loaded.denoiser, a.test, order, "sweep/times")
    ends = []
    with torch.no_grad():
        for start in range(0, len(a.test), a.spec.evaluation.batch_size):
            numbers = order[start : start + a.spec.evaluation.batch_size]
            levels = a.test.images(numbers).long().to(a.device)
            ends.append(end_terms(a.schedule, a.image, levels, Trajectories(a.streams, numbers)))
    both = (torch.cat([part.reconstruction for part in ends]), torch.cat([part.prior for part in ends]))
    return errors, EndTerms(*both)


def _bits_per_dim(errors: ExpertErrors, ends: EndTerms, threshold: float) -> tuple[float, float]:
    """Return the bound of a switch point and its standard error, bits/dim."""
    diffusion = switched_bits(errors, (threshold,))
    if not bool(diffusion.isfinite().all()):
        return math.inf, math.inf
    bound = Bound(ends.reconstruction, ends.prior, diffusion, errors.log_snr, network_calls=len(diffusion))
    return float(bound.total.mean()), standard_error([bound])


def _require_likelihood(loaded: LoadedRun, name: str, threshold: float) -> None:
    """Raise InputError unless the expert's bound is a valid likelihood bound; a switch between two such is one too."""
    a = loaded.assembly
    assert loaded.gate is not None
    loaded.gate.switch_at((threshold,))
    try:
        require_valid(loaded.denoiser, a.image, a.schedule, a.streams, a.device, gate=loaded.gate, n_items=len(a.test))
    except UnavailableError as reason:
        raise InputError(f"{name} has no bits/dim to sweep: {reason}") from None


def _measured(loaded: LoadedRun, metric: Metric, folder: Path | None, threshold: float) -> dict[str, Any]:
    """Measure the metric at a switch point; samples are kept in `folder`, if any."""
    assert loaded.gate is not None
    loaded.gate.switch_at((threshold,))
    if folder is not None:
        return measure(metric, ModelEvaluation(loaded.assembly, loaded.denoiser, folder))
    with tempfile.TemporaryDirectory() as temporary:
        return measure(metric, ModelEvaluation(loaded.assembly, loaded.denoiser, Path(temporary)))


# --- the record -------------------------------------------------------------------------------------------------------


def _trade_off(metric: Metric, swept: Sequence[_Place], seeds: Sequence[int], n_images: int) -> TradeOff:
    """Build the record of the sweep, with the Pareto set marked."""
    reached = [place for place in swept if all(map(math.isfinite, place.bits))]
    measured = next((entry for place in reached for entry in place.entries if "value" in entry), {})
    better: Better = "higher" if measured.get("better") == "higher" else "lower"
    qualities = [_qualities(place) for place in reached]
    sign = -1 if better == "higher" else 1
    figures = [
        (mean(place.bits), math.inf if quality is None else sign * mean(quality))
        for place, quality in zip(reached, qualities, strict=True)
    ]
    points = [
        _point(place, quality, seeds, pareto=quality is not None and best)
        for place, quality, best in zip(reached, qualities, unbeaten(figures), strict=True)
    ]
    return TradeOff(
        quality_name=metric.config.key,
        quality_unit=str(measured.get("unit", "")),
        quality_better=better,
        how=_how(metric, swept, reached, measured, seeds, n_images),
        points=points,
        comparisons=_comparisons({point.name: point for point in points if point.name != "switch"}, better),
    )


def _qualities(place: _Place) -> list[float] | None:
    """Return the metric per seed, or None if any seed could not be measured."""
    values = [entry.get("value") for entry in place.entries]
    return [float(value) for value in values if value is not None] if None not in values else None


def _point(place: _Place, quality: list[float] | None, seeds: Sequence[int], *, pareto: bool) -> SweepPoint:
    etas = [value if math.isfinite(value) else None for value in place.thresholds]
    known = [value for value in etas if value is not None]
    return SweepPoint(
        name=place.name,
        eta=mean(known) if known else None,
        bits_per_dim=mean(place.bits),
        standard_error=math.sqrt(math.fsum(error**2 for error in place.errors)) / len(place.errors),
        bits_interval=t_interval(place.bits),
        quality=None if quality is None else mean(quality),
        quality_interval=None if quality is None else t_interval(quality),
        pareto=pareto,
        seeds=tuple(
            SweptSeed(seed=seed, eta=eta, bits_per_dim=bits, quality=None if quality is None else quality[i])
            for i, (seed, eta, bits) in enumerate(zip(seeds, etas, place.bits, strict=True))
        ),
    )


def _comparisons(points: dict[str, SweepPoint], better: Better) -> tuple[SweepComparison, ...]:
    """Compare the merge with each expert in both figures, paired by seed, with Holm's correction over all comparisons.

    Empty for a single seed.
    """
    merge = points.get(MERGE)
    if merge is None or len(merge.seeds) < 2:
        return ()
    found: dict[str, Comparison] = {}
    for name in ALONE:
        if name not in points:
            continue
        for figure, direction in (("bits_per_dim", "lower"), ("quality", better)):
            ours, theirs = ([getattr(seed, figure) for seed in point.seeds] for point in (merge, points[name]))
            if None in ours or None in theirs:
                continue
            one = compare_paired(ours, theirs, "higher" if direction == "higher" else "lower")
            found[f"{name}/{figure}"] = one
    return tuple(
        SweepComparison(
            against=key.split("/")[0],
            figure="quality" if key.endswith("quality") else "bits_per_dim",
            difference=one.mean_difference,
            interval=one.interval,
            p_adjusted=one.p_adjusted,
            verdict=one.verdict,
            n=one.n,
        )
        for key, one in adjust(found).items()
    )


def _how(
    metric: Metric,
    swept: Sequence[_Place],
    reached: Sequence[_Place],
    measured: dict[str, Any],
    seeds: Sequence[int],
    n_images: int,
) -> str:
    several = len(seeds) > 1
    how = [
        f"Bits/dim: continuous bound on {n_images} test images, one draw each, the same for all points, "
        "summed from the experts' own errors",
        f"quality: {metric.config.key} of n = {measured['n']}, sampled again at each point from the same noise"
        if measured
        else f"{metric.config.key} was not measured: "
        f"{next((entry['unavailable'] for place in reached for entry in place.entries), 'no point')}",
        f"means over seeds {', '.join(map(str, seeds))}" if several else f"seed {seeds[0]}",
        *([str(measured["how"]["caution"])] if measured.get("how", {}).get("caution") else []),
    ]
    (merge,) = (place for place in swept if place.name == MERGE)
    idle = [str(seed) for seed, eta in zip(seeds, merge.thresholds, strict=True) if not math.isfinite(eta)]
    if idle:
        which = f" (seed {', '.join(idle)})" if several else ""
        how.append(f"the merge's own gate uses a single expert{which}")
    if len(reached) < len(swept):
        how.append(f"{len(swept) - len(reached)} points omitted because an expert would be evaluated outside its range")
    return "; ".join(how) + "."


def _curves(errors: ExpertErrors) -> dict[str, Any]:
    """Return each expert's mean diffusion term by log-SNR, bits/dim over the full range; None where not evaluated."""
    log_snr, curves = error_curves(errors, CURVE_BINS)
    shown = [[value if math.isfinite(value) else None for value in curve] for curve in curves.T.tolist()]
    return {"log_snr": log_snr.tolist(), "experts": shown}
