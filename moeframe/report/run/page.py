"""report.html: one self-contained page of a run, made from the run folder alone."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from moeframe.report.numbers import format_figure, format_interval
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
from moeframe.storage.atomic import write_file
from moeframe.storage.results import MetricResult, Results, read_json, read_results

if TYPE_CHECKING:
    from jinja2 import Environment

LEVEL = "log_snr "
"""How the parts of a figure at several noise levels begin."""
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
    """The templates of pages, with figures and intervals as filters."""
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
    return environment


def write_report(folder: Path) -> Path:
    """Write `folder/report.html`; the same folder gives the same bytes.

    Raises RunFolderError when the folder holds no finished run, StorageError when it cannot write.
    """
    results = read_results(folder / "results.json")
    spec_text = read_text(folder / "spec.yaml")
    spec = yaml.safe_load(spec_text)
    seed_folder = folder / f"seed-{results.seeds[0]}"
    diagnostics = read_diagnostics(seed_folder / "diagnostics.json")
    sections = [
        *_pictures(seed_folder, diagnostics),
        *_contact_sheets(seed_folder, diagnostics),
        *_learning(_events(seed_folder, diagnostics)),
        *_routing(diagnostics),
        *_reconstruction_curves(results),
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
            headline=[(name, metric) for name, metric in results.metrics.items() if isinstance(metric, MetricResult)][
                :3
            ],
            sections=[section for section in sections if section.figures],
            slices=diagnostics.slices,
            card=card,
            experts=experts if any(len(expert) > 2 for expert in experts) else [],  # more than number and type
            licence_warnings=[expert.pop("warning") for expert in experts if "warning" in expert],
            environment=read_json(folder / "environment.json"),
            spec_text=spec_text,
        )
    )
    path = folder / "report.html"
    write_file(path, page.encode())
    return path


def _summary(spec: Mapping[str, Any], results: Results) -> str:
    """What was run, in one sentence."""
    k = sum(expert.get("copies", 1) for expert in spec["experts"])
    gate = (spec.get("gate") or {}).get("type")
    merged = f"{k} experts" + (f" merged by the gate “{gate}”" if gate else "") if k > 1 else "A single expert (K = 1)"
    seeds = f"{len(results.seeds)} seeds" if len(results.seeds) > 1 else f"one seed ({results.seeds[0]})"
    return f"{merged} on “{spec['dataset']['type']}”, {seeds}."


def _pictures(folder: Path, diagnostics: Diagnostics) -> Iterator[Section]:
    steps = ", ".join(f"{value:.3g}" for value in diagnostics.trajectory_log_snr or ())
    level = diagnostics.reconstruction_log_snr
    pairs = "Held-out images, and what the deterministic sampler makes of them after noise was added"
    captions = {
        "samples": ("Samples", "Drawn from the model without selection."),
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
                caption += f" {broken} of them not finite: such pixels are NaN or infinite, and black here."
            yield Section(title, [Figure(title, caption, png=png)], "pictures")


def _contact_sheets(folder: Path, diagnostics: Diagnostics) -> Iterator[Section]:
    slices = diagnostics.slices or Slices(names=[], train=[], test=[])
    figures = []
    for k, (name, train, test) in enumerate(zip(slices.names, slices.train, slices.test, strict=True)):
        path = folder / f"slice-{k}.png"
        if path.exists():
            png = base64.b64encode(path.read_bytes()).decode()
            caption = f"Slice {k}: {train:,} training and {test:,} test images; shown are training images at random."
            caution = slices.cautions[k] if k < len(slices.cautions) else ""
            figures.append(Figure(name, f"{caption} Caution: {caution}." if caution else caption, png=png))
    yield Section("What the slices hold", figures, "pictures")


def _leaks(folder: Path) -> Iterator[Section]:
    path = folder / "duplicates.png"
    if path.exists():
        png = base64.b64encode(path.read_bytes()).decode()
        caption = "Above test images, below the training images that nearly equal them; how many there are: see Data."
        yield Section("Test images that also stand in train", [Figure("Leaks", caption, png=png)], "pictures")


def _events(seed_folder: Path, diagnostics: Diagnostics) -> list[Event]:
    """Without held-out bits/dim where a number of the model bounds no likelihood."""
    events = read_events(seed_folder / EVENTS)
    return [event.model_copy(update={"bits_per_dim": None}) for event in events] if diagnostics.no_bound else events


def _learning(events: Sequence[Event]) -> Iterator[Section]:
    figures: list[Figure] = []
    for phase, title in PHASES.items():
        figures += _phase_figures(phase, title, [event for event in events if event.phase == phase])
    yield Section("Learning curves", figures)


def _phase_figures(phase: str, title: str, events: Sequence[Event]) -> Iterator[Figure]:
    """The likelihood curves of one phase, and its further terms."""
    nll = _term(events, "nll")
    unit = nll.unit if nll else "objective"
    whole = nll.values if nll else [(event.step, event.objective) for event in events if event.objective is not None]
    experts = _expert_points(events)
    if phase == "warm_start" and any(experts):
        whole = []  # experts train apart: their mean says nothing more
    elif unit != "bits/dim":
        experts = []  # in joint training their errors are in bits/dim
    held_out = [(event.step, event.bits_per_dim) for event in events if event.bits_per_dim is not None]
    beside = held_out if unit == "bits/dim" else []
    if whole or any(experts) or beside:
        curve = plots.LearningCurve(unit=unit, train=whole, experts=experts, held_out=beside)
        lines = ["training loss of each expert alone on its own slice"] if not whole else ["training loss on batches"]
        lines += ["each expert's own error on the images that it saw"] if whole and any(experts) else []
        lines += ["dots: the bound on held-out images"] if beside else []
        caption = "; ".join(lines).capitalize() + f". Training curves have at most {plots.MAX_POINTS} points, as means."
        yield Figure(title.capitalize(), caption, plots.learning_curve(f"learning-{phase}", curve))
    if held_out and not beside:
        curve = plots.LearningCurve(unit="bits/dim", train=[], experts=[], held_out=held_out)
        svg = plots.learning_curve(f"held-out-{phase}", curve)
        yield Figure(f"{title.capitalize()}, held out", "The bound on held-out images.", svg)
    names = dict.fromkeys(name for event in events for name in event.terms if name != "nll")
    if terms := [term for name in names if (term := _term(events, name))]:
        svg = plots.loss_terms(f"terms-{phase}", terms)
        yield Figure(f"{title.capitalize()}, further terms", "Each term of the objective before its weight.", svg)


def _term(events: Sequence[Event], name: str) -> plots.LossTerm | None:
    """One term of the objective over steps, or None where no event has it."""
    points = [(event.step, event.terms[name]) for event in events if name in event.terms]
    if not points:
        return None
    first = points[0][1]
    values = [(step, term.value) for step, term in points]
    return plots.LossTerm(name=name, unit=first.unit, weight=first.weight, values=values)


def _expert_points(events: Sequence[Event]) -> list[list[tuple[int, float]]]:
    """(step, loss) of each expert; none for a single expert, whose loss is the whole."""
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
        caption = "Mean weight of each expert on noised held-out images." + _switching(diagnostics)
        gate.append(Figure("Gate weights over noise level", caption, plots.gate_weights("gate", weights)))
    if (usage := diagnostics.expert_usage) and len(usage) > 1:
        caption = "Mean gate weight over all noise levels; the dashed line is balanced use."
        gate.append(Figure("Expert usage", caption, plots.expert_usage("usage", usage)))
    if router := diagnostics.router_accuracy:
        caption = "How often the largest gate weight is on the expert of the image's own slice."
        gate.append(Figure("Router accuracy", caption, plots.router_accuracy("router", router, names)))
    yield Section("What the gate does", gate)

    experts: list[Figure] = []
    if bits := diagnostics.expert_slice_bits:
        columns = names or [f"slice {k}" for k in range(len(bits.merged))]
        caption = (
            "Bound in bits/dim (lower is better). Bold: the slice's best expert; framed: the expert's own slice; "
            "colour: excess over the best expert. "
            f"Images per slice: {', '.join(map(str, bits.n))}."
        )
        experts.append(Figure("Expert × slice", caption, plots.slice_matrix("matrix", bits, columns)))
    if bound := diagnostics.bound_by_log_snr:
        of = f" Means over {bound.images} test images, one draw each, the same noise for all." if bound.images else ""
        caption = f"The area under a curve is the diffusion part of the bound.{of}{_switching(diagnostics)}"
        svg = plots.bound_by_noise("bound", bound, diagnostics.switches)
        experts.append(Figure("Bound by log-SNR", caption, svg))
    if diagnostics.no_bound:
        experts.append(Figure("No bound", f"None is shown: {diagnostics.no_bound}", ""))
    yield Section("Likelihood in detail", experts)


def _switching(diagnostics: Diagnostics) -> str:
    """Where the gate changes expert, as the end of a caption."""
    at = ", ".join(f"{value:.3f}" for value in diagnostics.switches)
    return f" The gate switches at log-SNR {at}." if at else ""


def _sweep(folder: Path) -> Iterator[Section]:
    """sweep.json as a plot, where the merge was swept."""
    path = folder / "sweep.json"
    if path.exists():
        sweep = checked(TradeOff, read_json(path), str(path))
        lowest = min(sweep.points, key=lambda point: point.bits_per_dim)
        compared = "".join(f" {sentence[0].upper()}{sentence[1:]}." for sentence in sweep_sentences(sweep))
        where = f"η = {lowest.eta:.3f}" if lowest.eta is not None else lowest.name
        caption = (
            "One point for each place of the switch, both experts alone and the merge; filled: no other point is "
            "better in both figures; bars: an expert's distance from the merge, 95 %, paired by seed. "
            f"Fewest bits/dim: {where}. {sweep.how}{compared}"
        )
        yield Section("Likelihood against quality", [Figure("Sweep", caption, trade_off("sweep", sweep))])


def _reconstruction_curves(results: Results) -> Iterator[Section]:
    """Figures of reconstructions: their parts are named by the log-SNR that images were brought back from."""
    figures = []
    for name, metric in results.metrics.items():
        parts = metric.parts.items() if isinstance(metric, MetricResult) else ()
        points = [(float(part.removeprefix(LEVEL)), value.mean) for part, value in parts if part.startswith(LEVEL)]
        if isinstance(metric, MetricResult) and len(points) > 1:
            caption = "Of held-out images brought back from noise, by the log-SNR that they were noised to."
            figures.append(Figure(name, caption, plots.figure_over_noise(f"curve-{name}", metric.unit, points)))
    yield Section("Reconstructions over noise level", figures)
