"""README.md of an exported model: its parts, its measurements, how to load it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moeframe.interfaces.exporter import TrainedModel
from moeframe.report.numbers import format_figure, format_interval
from moeframe.storage.atomic import write_file

FRONT_MATTER = ("---", "library_name: moeframe", "tags: [diffusion, mixture-of-experts]", "---")


def with_card(model: TrainedModel, expert: int | None, folder: Path, load: str) -> str:
    """Write the card into the folder of an export; returns `load`, how to load it."""
    write_file(folder / "README.md", model_card(model, expert, load).encode())
    return load


def model_card(model: TrainedModel, expert: int | None, load: str) -> str:
    """The card in Markdown, with metrics of the merged model only: experts are not measured alone."""
    return "\n".join([*FRONT_MATTER, "", *_body(model, expert, load)]) + "\n"


def _body(model: TrainedModel, expert: int | None, load: str) -> Iterator[str]:
    k = len(model.experts)
    gate = (model.spec.get("gate") or {}).get("type")
    whole = f"{k} experts merged by the gate `{gate}`" if gate else "a single expert"
    yield f"# {model.name}" + ("" if expert is None else f", expert {expert}")
    yield ""
    yield (
        f"A diffusion model of {model.image.channels}x{model.image.height}x{model.image.width} images with "
        f"{model.image.levels} levels: {whole}, seed {model.seed}."
        + ("" if expert is None else f" This is expert {expert} alone, without the gate.")
    )
    yield from ["", "## Use", "", "```python" if "import" in load else "```yaml", load, "```", ""]
    yield from _data(model.card)
    yield from _weights(model.card)
    if expert is None:
        yield from _figures(model.results)
    low, high = model.schedule.log_snr_min, model.schedule.log_snr_max
    yield from [
        "## Limits",
        "",
        f"Trained and measured for log-SNR {low:g} to {high:g}, sampled with `{model.sampler.name()}`, "
        f"{model.sampler.config.steps} steps. The run's results.json says how each value was computed.",
    ]


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    known = [f"- {key}: {card[key]}" for key in ("source", "licence", "split_rule") if card.get(key)]
    if known:
        yield from ["## Training data", "", *known, ""]


def _weights(card: Mapping[str, Any]) -> Iterator[str]:
    """Experts that were not trained by the run itself, with their licences."""
    foreign = [entry for entry in card.get("experts", ()) if entry.get("source") or entry.get("licence")]
    if not foreign:
        return
    yield from ["## Where the weights come from", ""]
    for entry in foreign:
        yield (
            f"- expert {entry['number']} ({entry['type']}): source {entry.get('source', 'not stated')}, licence "
            f"{entry.get('licence', 'not stated')}"
        )
    yield from [f"- **{entry['warning']}**" for entry in foreign if "warning" in entry]
    yield ""


def _figures(results: Mapping[str, Any]) -> Iterator[str]:
    metrics = {name: metric for name, metric in results.get("metrics", {}).items() if "mean" in metric}
    if not metrics:
        return
    yield from [
        "## Measured",
        "",
        "| metric | value | 95 % interval | unit | better | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, metric in metrics.items():
        interval = tuple(metric["interval"]) if metric.get("interval") else None
        shown = format_interval(interval) if interval else "none"
        value = format_figure(metric["mean"], interval)
        yield f"| {name} | {value} | {shown} | {metric['unit']} | {metric['better']} | {metric['n_seeds']} |"
    yield ""
