"""report.html: one self-contained page of a run, made from its folder alone."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from moeframe.report.drawing import themed
from moeframe.report.numbers import compact, format_figure, format_interval
from moeframe.report.run import plots
from moeframe.report.run.seed_folder import (
    EVENTS,
    Diagnostics,
    Event,
    Slices,
    checked,
    read_diagnostics,
    read_events,
    read_text,
)
from moeframe.report.run.trade_off import TradeOff, sweep_sentences, trade_off
from moeframe.report.run.verdict import verdict
from moeframe.report.titles import in_words, key_title, metric_titles, without_keys
from moeframe.stats.comparison import COMPARED_FROM
from moeframe.storage.atomic import write_file
from moeframe.storage.results import MetricResult, Results, read_json, read_results

if TYPE_CHECKING:
    from jinja2 import Environment

LEVEL = "log_snr "
"""Prefix of the parts of a metric that was measured at several noise levels."""
PHASES = {"warm_start": "warm start", "joint": "joint training"}


@dataclass(frozen=True)
class Figure:
    """One picture of the page: an SVG element or the data of a PNG."""

    title: str
    caption: str
    svg: str = ""
    png: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with its figures."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    kind: Literal["plots", "pictures"] = "plots"


def page_environment() -> "Environment":
    """Return the templates of pages, with the formats of numbers, titles and plots as filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("moeframe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = format_figure
    environment.filters["interval"] = format_interval
    environment.filters["compact"] = compact
    environment.filters["key_title"] = key_title
    environment.filters["words"] = in_words
    environment.filters["readable"] = _readable
    environment.filters["themed"] = themed
    return environment


def _readable(text: object) -> object:
    """Replace keys by titles; text that is already HTML stays HTML."""
    from markupsafe import Markup

    return Markup(without_keys(text)) if isinstance(text, Markup) else without_keys(str(text))  # noqa: S704


def write_report(folder: Path) -> Path:
    """Write `folder/report.html`; the same folder gives the same bytes.

    Raises RunFolderError if the folder holds no finished run, StorageError if the page cannot be written.
    """
    results = read_results(folder / "results.json")
    spec_text = read_text(folder / "spec.yaml")
    spec = yaml.safe_load(spec_text)
    seed_folder = folder / f"seed-{results.seeds[0]}"
    diagnostics = read_diagnostics(seed_folder / "diagnostics.json")
    titles = metric_titles({name: getattr(metric, "unit", "") for name, metric in results.metrics.items()})
    pictures = list(_pictures(seed_folder, diagnostics))
    sections = [
        *pictures[1:],
        *_contact_sheets(seed_folder, diagnostics),
        *_learning(_events(seed_folder, diagnostics)),
        *_routing(diagnostics),
        *_reconstruction_curves(results, titles),
        *_sweep(folder),
        *_leaks(folder),
    ]
    card = read_json(folder / "card.json") if (folder / "card.json").exists() else {}
    experts = card.pop("experts", [])
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            summary=_summary(spec, results),
            titles=titles,
            findings=verdict(results, titles),
            first=pictures[:1],
            sections=[section for section in sections if section.figures],
            slices=diagnostics.slices,
            card=card,
            experts=experts if any(len(expert) > 2 for expert in experts) else [],  # more than number and type
            licence_warnings=[expert.pop("warning") for expert in experts if "warning" in expert],
            environment=read_json(folder / "environment.json"),
            spec_text=spec_text,
            script=files("moeframe.report").joinpath("templates/page.js").read_text(encoding="utf-8"),
        )
    )
    path = folder / "report.html"
    write_file(path, page.encode())
    return path


def _summary(spec: Mapping[str, Any], results: Results) -> str:
    """Describe the model, the data and the seeds in one sentence."""
    k = sum(expert.get("copies", 1) for expert in spec["experts"])
    gate = (spec.get("gate") or {}).get("type")
    merged = f"{k} experts" + (f" with a {in_words(gate)} gate" if gate else "") if k > 1 else "A single expert (K = 1)"
    seeds = f"{len(results.seeds)} seeds" if len(results.seeds) > 1 else f"one seed ({results.seeds[0]})"
    return f"{merged} on {in_words(spec['dataset']['type'])}, {seeds}."


def _pictures(folder: Path, diagnostics: Diagnostics) -> Iterator[Section]:
    steps = ", ".join(f"{value:.3g}" for value in diagnostics.trajectory_log_snr or ())
    level = diagnostics.reconstruction_log_snr
    pairs = "Test images and their reconstructions by the deterministic sampler, after adding noise"
    captions = {
        "samples": ("Samples", "Random samples, not selected."),
        "trajectory": (
            "Denoising trajectory",
            "From noise (left) to the finished image (right)"
            + (f": log-SNR {steps}, then the image." if steps else "."),
        ),
        "reconstructions": (
            "Reconstructions",
            pairs + (f" down to log-SNR {level:.3g}." if level is not None else "."),
        ),
    }
    for stem, (title, caption) in captions.items():
        path = folder / f"{stem}.png"
        if path.exists():
            png = base64.b64encode(path.read_bytes()).decode()
            if broken := diagnostics.not_finite.get(stem):
                caption += f" {broken} of them have NaN or infinite pixels, shown in black."
            yield Section(title, [Figure(title, caption, png=png)], "pictures")


def _contact_sheets(folder: Path, diagnostics: Diagnostics) -> Iterator[Section]:
    slices = diagnostics.slices or Slices(names=[], train=[], test=[])
    figures = []
    for k, (name, train, test) in enumerate(zip(slices.names, slices.train, slices.test, strict=True)):
        path = folder / f"slice-{k}.png"
        if path.exists():
            png = base64.b64encode(path.read_bytes()).decode()
            caption = f"Slice {k}: {train:,} training and {test:,} test images; random training images are shown."
            caution = slices.cautions[k] if k < len(slices.cautions) else ""
            figures.append(Figure(name, f"{caption} Caution: {caution}." if caution else caption, png=png))
    yield Section("Images of the slices", figures, "pictures")


def _leaks(folder: Path) -> Iterator[Section]:
    path = folder / "duplicates.png"
    if path.exists():
        png = base64.b64encode(path.read_bytes()).decode()
        caption = "Top: test images; bottom: their near-duplicates in the training split. Counts are under Data."
        yield Section(
            "Test images that also appear in the training split", [Figure("Leaks", caption, png=png)], "pictures"
        )


def _events(seed_folder: Path, diagnostics: Diagnostics) -> list[Event]:
    """Return the events, without validation bits/dim for a model that has no bound."""
    events = read_events(seed_folder / EVENTS)
    return [event.model_copy(update={"bits_per_dim": None}) for event in events] if diagnostics.no_bound else events


def _learning(events: Sequence[Event]) -> Iterator[Section]:
    figures: list[Figure] = []
    for phase, title in PHASES.items():
        figures += _phase_figures(phase, title, [event for event in events if event.phase == phase])
    yield Section("Learning curves", figures)


def _phase_figures(phase: str, title: str, events: Sequence[Event]) -> Iterator[Figure]:
    """Yield the likelihood curves of one phase, and its other terms."""
    nll = _term(events, "nll")
    unit = nll.unit if nll else "objective"
    total = nll.values if nll else [(event.step, event.objective) for event in events if event.objective is not None]
    experts = _expert_points(events)
    if phase == "warm_start" and any(experts):
        total = []  # experts train separately: their mean adds nothing
    elif unit != "bits/dim":
        experts = []  # in joint training their errors are in bits/dim
    validation = [(event.step, event.bits_per_dim) for event in events if event.bits_per_dim is not None]
    beside = validation if unit == "bits/dim" else []
    if total or any(experts) or beside:
        curve = plots.LearningCurve(unit=unit, train=total, experts=experts, validation=beside)
        lines = ["training loss of each expert on its own slice"] if not total else ["training loss on batches"]
        lines += ["each expert's error on the images routed to it"] if total and any(experts) else []
        lines += ["dots: the bound on validation images"] if beside else []
        caption = "; ".join(lines).capitalize() + f". Training curves are averaged to {plots.MAX_POINTS} points."
        yield Figure(title.capitalize(), caption, plots.learning_curve(f"learning-{phase}", curve))
    if validation and not beside:
        curve = plots.LearningCurve(unit="bits/dim", train=[], experts=[], validation=validation)
        svg = plots.learning_curve(f"validation-{phase}", curve)
        yield Figure(f"{title.capitalize()}, validation", "The bound on validation images.", svg)
    names = dict.fromkeys(name for event in events for name in event.terms if name != "nll")
    if terms := [term for name in names if (term := _term(events, name))]:
        svg = plots.loss_terms(f"terms-{phase}", terms)
        yield Figure(f"{title.capitalize()}, other terms", "Each term of the objective before its weight.", svg)


def _term(events: Sequence[Event], name: str) -> plots.LossTerm | None:
    """Return one term of the objective over steps, or None if no event has it."""
    points = [(event.step, event.terms[name]) for event in events if name in event.terms]
    if not points:
        return None
    first = points[0][1]
    values = [(step, term.value) for step, term in points]
    return plots.LossTerm(name=name, unit=first.unit, weight=first.weight, values=values)


def _expert_points(events: Sequence[Event]) -> list[list[tuple[int, float]]]:
    """Return (step, loss) of each expert; empty for a single expert."""
    n_experts = max((len(event.experts) for event in events), default=0)
    curves: list[list[tuple[int, float]]] = [[] for _ in range(n_experts if n_experts > 1 else 0)]
    for event in events:
        for curve, value in zip(curves, event.experts, strict=False):
            if value is not None:
                curve.append((event.step, value))
    return curves


def _routing(diagnostics: Diagnostics) -> Iterator[Section]:
    names = diagnostics.slices.names if diagnostics.slices else []
    gate: list[Figure] = []
    if (weights := diagnostics.gate_weights) and len(weights.mean[0]) > 1:
        caption = "Mean weight of each expert on noised test images." + _switching(diagnostics)
        gate.append(Figure("Gate weights by noise level", caption, plots.gate_weights("gate", weights)))
    if (usage := diagnostics.expert_usage) and len(usage) > 1:
        caption = "Mean gate weight over all noise levels; dashed: balanced use."
        gate.append(Figure("Expert usage", caption, plots.expert_usage("usage", usage)))
    if router := diagnostics.router_accuracy:
        caption = "How often the largest gate weight is on the expert of the image's own slice."
        gate.append(Figure("Router accuracy", caption, plots.router_accuracy("router", router, names)))
    yield Section("Gate", gate)

    experts: list[Figure] = []
    if bits := diagnostics.expert_slice_bits:
        columns = names or [f"slice {k}" for k in range(len(bits.merged))]
        caption = (
            "Bound in bits/dim (lower is better). Bold: best expert of the slice; framed: the expert's own slice; "
            "colour: excess over the best expert. "
            f"Images per slice: {', '.join(map(str, bits.n))}."
        )
        experts.append(Figure("Expert × slice", caption, plots.slice_matrix("matrix", bits, columns)))
    if bound := diagnostics.bound_by_log_snr:
        of = f" Mean over {bound.images} test images, one draw each, the same noise." if bound.images else ""
        caption = f"Area under a curve: the diffusion part of the bound.{of}{_switching(diagnostics)}"
        svg = plots.bound_by_noise("bound", bound, diagnostics.switches)
        experts.append(Figure("Bound by log-SNR", caption, svg))
    if diagnostics.no_bound:
        experts.append(Figure("No bound", f"Not available: {diagnostics.no_bound}", ""))
    yield Section("Likelihood in detail", experts)


def _switching(diagnostics: Diagnostics) -> str:
    """Return the switch points of the gate, as the end of a caption."""
    at = ", ".join(f"{value:.3f}" for value in diagnostics.switches)
    return f" The gate switches at log-SNR {at}." if at else ""


def _sweep(folder: Path) -> Iterator[Section]:
    """Yield the plot of sweep.json, if the merge was swept."""
    path = folder / "sweep.json"
    if path.exists():
        sweep = checked(TradeOff, read_json(path), str(path))
        lowest = min(sweep.points, key=lambda point: point.bits_per_dim)
        compared = "".join(f" {sentence[0].upper()}{sentence[1:]}." for sentence in sweep_sentences(sweep))
        underpowered = any(comparison.verdict == "underpowered" for comparison in sweep.comparisons)
        few = f" Underpowered: fewer than {COMPARED_FROM} seeds." if underpowered else ""
        where = f"η = {lowest.eta:.3f}" if lowest.eta is not None else lowest.name
        caption = (
            "One point per switch point, both experts alone, and the merge. Filled: Pareto front; bars: 95 % interval "
            "of an expert's difference from the merge, paired by seed. "
            f"Lowest bits/dim: {where}. {sweep.how}{compared}{few}"
        )
        yield Section("Likelihood against quality", [Figure("Sweep", caption, trade_off("sweep", sweep))])


def _reconstruction_curves(results: Results, titles: Mapping[str, str]) -> Iterator[Section]:
    """Yield metrics of reconstructions by the log-SNR of the noised images, which names their parts."""
    figures = []
    for name, metric in results.metrics.items():
        parts = metric.parts.items() if isinstance(metric, MetricResult) else ()
        points = [(float(part.removeprefix(LEVEL)), value.mean) for part, value in parts if part.startswith(LEVEL)]
        if isinstance(metric, MetricResult) and len(points) > 1:
            caption = "Test images, by the log-SNR that they were noised to."
            figures.append(Figure(titles[name], caption, plots.figure_over_noise(f"curve-{name}", metric.unit, points)))
    yield Section("Reconstructions by noise level", figures)
