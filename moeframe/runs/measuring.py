"""Evaluation of one seed, and the summary of all seeds: results.json and report.html."""

from pathlib import Path

from moeframe.assembly import Assembly
from moeframe.evaluation.diagnostics import write_diagnostics
from moeframe.evaluation.evaluation import ModelEvaluation, measure
from moeframe.progress import Watcher
from moeframe.report.run.page import write_report
from moeframe.spec.schema import RunSpec
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.results import Results, combine_seeds, read_json, read_metrics, write_results
from moeframe.storage.run_folder import RunFolder


def evaluate_seed(folder: Path, assembly: Assembly, watcher: Watcher) -> None:
    """Measure every metric of the spec, draw the diagnostics, and write metrics.json into the seed's folder."""
    evaluation = ModelEvaluation(assembly, assembly.model, folder)
    watcher.begin(f"seed {assembly.streams.seed}: evaluation", len(assembly.metrics) + 1)
    entries = {metric.config.key: dict[str, object]() for metric in assembly.metrics}  # in the order of the spec
    # Timings and memory come first, before feature networks and samples take memory.
    for metric in sorted(assembly.metrics, key=lambda metric: metric.DETERMINISTIC):
        entries[metric.config.key] = measure(metric, evaluation)
        watcher.advance(metric.config.key)
    write_diagnostics(folder, assembly, evaluation)
    watcher.advance("pictures")
    # Last, because its presence says that the seed is complete.
    write_file(folder / "metrics.json", as_json(entries))


def summarise(folder: RunFolder, spec: RunSpec) -> Results:
    """Write results.json and report.html from the metrics of all seeds."""
    per_seed = {seed: read_metrics(folder.metrics(seed)) for seed in spec.seeds}
    environment = read_json(folder.environment)
    results = combine_seeds(spec.name, spec.hash(), environment, per_seed)
    write_results(folder.results, results)
    write_report(folder.path)
    return results
