"""The files that moeframe reads and writes: spec, study file, run folder, results.json."""

import json
from pathlib import Path
from typing import Any

from settings_tables import settings_table, table

from moeframe.spec.renamed_keys import RENAMED
from moeframe.spec.schema import LIST_SECTIONS, MACHINE_SETTINGS, SECTIONS, EvaluationConfig, RunSpec, TrainingConfig
from moeframe.storage.results import MetricResult, PartResult, Results, UnavailableResult
from moeframe.studies.study_file import StudyConfig, VariantConfig

RUN_FILES = {
    "spec.yaml": "the resolved spec, every default written out",
    "environment.json": "versions of Python, PyTorch and other packages, device, threads, hash of the source",
    "card.json": "where data and weights come from: source, licence, split, file hashes, duplicates, leakage",
    "duplicates.png": "pairs of a test image and its (near-)copy in the training split, if there are any",
    "results.json": "every metric over all seeds; see [results.json](results.md)",
    "report.html": "the report, one self-contained page",
    "sweep.json": "`moeframe merge --sweep`: what was measured at each switch point",
    "sweep.svg": "the trade-off curve of the sweep",
    "seed-N/checkpoints/": "weights, averaged weights and optimiser state at the last steps, with checksums",
    "seed-N/events.jsonl": "one line per logged step: losses, gradient norm, validation bounds",
    "seed-N/slices.npz": "the slice of every training and test image, and the slicer's thresholds",
    "seed-N/slice-K.png": "contact sheet of slice K",
    "seed-N/metrics.json": "what was measured on this seed; present once its evaluation is complete",
    "seed-N/diagnostics.json": "numbers behind the report's plots",
    "seed-N/samples/": "the drawn samples as integers, resumed if interrupted",
    "seed-N/samples.png": "grid of samples",
    "seed-N/trajectory.png": "denoising trajectories, noise on the left",
    "seed-N/reconstructions.png": "reconstructions of test images from stated noise levels",
}
"""Path in a run folder to its content. A test compares this with what a run writes."""


def file_pages(results_example: Path) -> dict[str, str]:
    """File name to Markdown."""
    return {
        "spec.md": _spec_page(),
        "study.md": _study_page(),
        "run-folder.md": _run_folder_page(),
        "results.md": _results_page(results_example),
    }


def _spec_page() -> str:
    sections = {**SECTIONS, **LIST_SECTIONS}
    rows = [
        (f"`{section}`", f"{'list of ' if section in LIST_SECTIONS else ''}[{kind}](components/{kind}/index.md)")
        for section, kind in sections.items()
    ]
    hidden = frozenset({*sections, "training", "evaluation"})
    machine = ", ".join(f"`{section}.{key}`" if section else f"`{key}`" for section, key in MACHINE_SETTINGS)
    renamed = [(f"`{section}.{old}`", f"`{section}.{new}`") for (section, old), new in RENAMED.items()]
    return "\n\n".join(
        [
            "# Spec file",
            "One YAML file describes one run. `base: other.yaml` starts from another spec (one level, relative to the "
            "file); `--set path=value` overrides both. Mappings are merged key by key; where `type` changes, the "
            "section is replaced; lists are replaced. Unknown keys, duplicate keys and wrong types are errors, all "
            "reported at once as `file:line:column`. `moeframe schema` prints the JSON Schema for editors.",
            "## Top level",
            settings_table(RunSpec, hidden),
            "## Component sections",
            "`type` selects an installed component; the other keys are its settings. `slicer`, `trunk` and `gate` may "
            "be left out.",
            table(("section", "holds"), rows),
            "## training",
            settings_table(TrainingConfig),
            "## evaluation",
            settings_table(EvaluationConfig),
            "## Identity of a run",
            f"The settings of the machine, {machine}, may differ when a run is resumed. Every other setting belongs to "
            "the run: a changed spec needs another folder, or `--fresh`.",
            "## Renamed keys",
            "Old keys still load, with a warning ([versions](../versions.md)).",
            table(("old", "new"), renamed),
        ]
    )


def _study_page() -> str:
    return "\n\n".join(
        [
            "# Study file",
            "A study file names a spec, variants of it, the seeds of all, and a baseline. `moeframe validate` "
            "checks it; [the tutorial](../tutorials/study.md) runs one.",
            "## Top level",
            settings_table(StudyConfig),
            "## Each entry of variants",
            settings_table(VariantConfig),
        ]
    )


def _run_folder_page() -> str:
    rows = [(f"`{path}`", meaning) for path, meaning in RUN_FILES.items()]
    return "\n\n".join(
        [
            "# Run folder",
            "`moeframe run` and `moeframe merge` write `runs/NAME/`, or the folder of `--out`. Running the same "
            "command again resumes; see [Resume a run](../how-to/resume.md).",
            table(("file", "content"), rows),
        ]
    )


def _results_page(example: Path) -> str:
    shown: dict[str, Any] = json.loads(example.read_text(encoding="utf-8"))
    name, entry = next((key, value) for key, value in shown["metrics"].items() if "mean" in value)
    text = json.dumps({name: entry}, indent=2, ensure_ascii=False)
    return "\n\n".join(
        [
            "# results.json",
            "Every metric of a run over its seeds. A metric that could not be computed has an entry that says why; it "
            "is never left out.",
            "## The whole file",
            settings_table(Results),
            "## A metric",
            settings_table(MetricResult),
            "## A part of a metric",
            settings_table(PartResult),
            "## A metric that was not measured",
            settings_table(UnavailableResult),
            "## Example",
            f"From the demo's results:\n\n```json\n{text}\n```",
        ]
    )
