"""study.html: one self-contained page of a study, made from its folder alone, beside the tables."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from moeframe.report.run import plots
from moeframe.report.run.page import Figure, Section, page_environment
from moeframe.report.study.comparison_table import begun, table_of
from moeframe.report.study.curves import costs_of_calls, overtaking, without_curve
from moeframe.report.study.formats import notes, remove_table, shown_cell, shown_difference, shown_flops, write_table
from moeframe.report.study.plots import NOISE, Axis, Cast, Line, Mark, Point, lines, scatter
from moeframe.report.study.record import Evidence, by_noise, by_slice, evidence_of, refreshed
from moeframe.report.study.rows import Against, Cell, Column, Row, Table
from moeframe.report.study.run_records import RunRecords
from moeframe.report.study.sentences import QUALITY, in_short, said_of, sentences
from moeframe.stats.comparison import COMPARED_FROM
from moeframe.storage.atomic import write_file
from moeframe.storage.study_folder import StudyFolder

ALPHA = 0.05
COMPUTE = ("network_calls", "flops", "latency")


def write_study(folder: Path) -> Table:
    """study.json anew from the runs, tables/ and study.html; the same runs give the same bytes.

    Raises RunFolderError where the folder holds no study or a damaged one.
    """
    whole, runs = refreshed(folder)
    record = begun(whole)
    evidence = evidence_of(record, runs)
    table, noise, slices = table_of(record), by_noise(record, evidence), by_slice(record, evidence)
    for name, each in (("study", table), ("noise_levels", noise), ("slices", slices)):
        if each.columns or each is table:
            write_table(folder, name, each)
        else:
            remove_table(folder, name)  # of a time when the runs had it
    sections = [
        *_trade_off(table),
        *_learning(table, evidence),
        *_noise(table, evidence),
        *_samples(evidence),
    ]
    per_variant = [(one.title, list(_of_variant(k, one))) for k, one in enumerate(evidence)]
    page = (
        page_environment()
        .get_template("study.html.j2")
        .render(
            table=table,
            seeds=record["seeds"],
            titles={row.name: row.title for row in table.rows},
            tables=[
                (title, words, each)
                for title, words, each in (
                    (
                        "Where over the noise levels",
                        "Diffusion part of the bound, bits/dim, by range of log-SNR.",
                        noise,
                    ),
                    ("On which slices", "Bound of the same held-out images, bits/dim, by slice.", slices),
                )
                if each.columns
            ],
            sentences=sentences(table),
            in_short=in_short(table),
            made=_made(record, runs),
            where=_supported(noise, slices),
            tested=_tested(noise, slices),
            tendencies=_tendencies(noise, slices),
            curves=overtaking(table, evidence),
            without_curve=without_curve(table, evidence),
            notes=notes(table),
            changes=[(row["title"], row["changes"]) for row in record["variants"] if "changes" in row],
            shared=record.get("changes", []),
            shown_flops=shown_flops,
            n_parts=len(noise.columns) + len(slices.columns),
            sections=[section for section in sections if section.figures],
            per_variant=[(title, figures) for title, figures in per_variant if figures],
            shown_cell=shown_cell,
            shown_difference=shown_difference,
            hint=_hint,
            hint_of_pair=_hint_of_pair,
            powered=COMPARED_FROM,
            script=files("moeframe.report").joinpath("templates/study.js").read_text(encoding="utf-8"),
        )
    )
    write_file(StudyFolder(folder).page, page.encode())
    return table


def _made(record: Mapping[str, Any], runs: RunRecords) -> list[str]:
    """How long was trained, how sampled, and on what machine, as far as the folder says."""
    rows = [row for row in record["variants"] if "steps" in row]
    found = []
    for key, say in (
        ("steps", "{:,} training steps"),
        ("batch_size", "batches of {}"),
        ("sampler", "sampler {}"),
    ):
        named: dict[Any, list[str]] = {}
        for row in rows:
            named.setdefault(row[key], []).append(row["name"])
        usual = max(named, key=lambda value: len(named[value]), default=None)
        others = [f"{', '.join(names)}: {value}" for value, names in named.items() if value != usual]
        found += [say.format(usual) + (f" ({'; '.join(others)})" if others else "")] if named else []
    devices = dict.fromkeys(str(run.environment.get("device_name", "")) for run in runs.values())
    return [*found, *([f"on {', '.join(filter(None, devices))}"] if any(devices) else [])]


def _supported(*tables: Table) -> list[str]:
    """Sentences on parts of the bound that differ for sure: Holm over the rows, and Bonferroni over the parts."""
    n = sum(len(table.columns) for table in tables)
    return [
        said
        for one, said in _comparisons(*tables)
        if one.verdict in ("better", "worse") and one.p_adjusted is not None and one.p_adjusted * n < ALPHA
    ]


def _comparisons(*tables: Table) -> Iterator[tuple[Against, str]]:
    """Each part of each variant against the baseline and of each pair, and its sentence."""
    for table in tables:
        yield from said_of(table)


def _tested(*tables: Table) -> bool:
    """Whether any row has seeds enough to be called different."""
    return any(one.verdict != "underpowered" for one, _ in _comparisons(*tables))


def _tendencies(*tables: Table) -> list[str]:
    """Sentences on parts whose interval leaves zero out, whatever the number of seeds; nothing is corrected for."""
    return [
        said
        for one, said in _comparisons(*tables)
        if one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)
    ]


def _hint(cell: Cell, column: Column, row: Row, seeds: Sequence[int]) -> str:
    """All that a cell knows, for who points at it."""
    if cell.mean is None:
        return f"{row.title}, {column.name}: {cell.why_not}"
    lines = [f"{row.title}, {column.name} in {column.unit}", f"mean over {cell.n_seeds} seeds: {cell.mean:.6g}"]
    lines += [] if cell.interval is None else [f"95 % t-interval: {cell.interval[0]:.6g} to {cell.interval[1]:.6g}"]
    lines += [cell.lacks] if cell.lacks else []
    values = zip(seeds, cell.per_seed, strict=True)
    lines += [f"seed {seed}: {'–' if value is None else f'{value:.6g}'}" for seed, value in values]
    if cell.against is not None:
        lines += [f"minus the baseline: {shown_difference(cell.against)}", cell.against.verdict]
        lines += [] if cell.against.gain_interval else [f"interval of the gain: {cell.against.gain_method}"]
    return "\n".join(lines)


def _hint_of_pair(one: Against, column: Column, first: str, second: str) -> str:
    lines = [f"{first} minus {second}, {column.name} in {column.unit}", f"{one.difference:.6g} over {one.n} seeds"]
    lines += [] if one.interval is None else [f"95 % t-interval: {one.interval[0]:.6g} to {one.interval[1]:.6g}"]
    return "\n".join([*lines, one.verdict])


# --- plots over all variants ------------------------------------------------------------------------------------------


def _trade_off(table: Table) -> Iterator[Section]:
    names = {column.name: column for column in table.columns}
    qualities = [names[name] for name in QUALITY if name in names]
    figures = []
    if "bits_per_dim" in names and qualities:
        bits = names["bits_per_dim"]
        for quality in qualities:
            svg = _scatter(f"bits-{quality.name}", table, bits, quality)
            figures.append(Figure(f"bits/dim against {quality.name}", _caption(quality), svg))
    for cost in (names[name] for name in COMPUTE if name in names):
        for quality in qualities[:1]:
            svg = _scatter(f"{cost.name}-{quality.name}", table, cost, quality, log=True)
            caption = f"{_caption(quality)} Across: what sampling one image takes."
            figures.append(Figure(f"{quality.name} against {cost.name}", caption, svg))
    yield Section("Likelihood, quality and compute", figures)


def _caption(quality: Column) -> str:
    return (
        f"Means over seeds with 95 % t-intervals; {quality.name}: {quality.better} is better. The intervals show how "
        "seeds differ; pairs of variants are compared in the table, seed by seed. Black: the baseline."
    )


def _scatter(name: str, table: Table, x: Column, y: Column, *, log: bool = False) -> str:
    points = [
        Point(name=row.name, title=_of(row, row.cells[x.name], row.cells[y.name]), x=across, y=up)
        for row in table.rows
        if (across := _mark(row.cells[x.name])) and (up := _mark(row.cells[y.name]))
    ]
    title = f"{y.name} against {x.name}"
    return scatter(name, title, points, _axis(x, log=log), _axis(y), _cast(table))


def _cast(table: Table) -> Cast:
    return Cast([row.name for row in table.rows], table.baseline)


def _of(row: Row, *cells: Cell) -> str:
    n = min(cell.n_seeds for cell in cells)
    return row.title if n == row.seeds else f"{row.title} ({n} of {row.seeds} seeds)"


def _mark(cell: Cell) -> Mark | None:
    return None if cell.mean is None else Mark(mean=cell.mean, interval=cell.interval)


def _axis(column: Column, *, log: bool = False) -> Axis:
    unit = column.unit if len(column.unit) < 30 else ""
    return Axis(label=column.name if unit in ("", column.name) else f"{column.name}, {unit}", log=log)


def _learning(table: Table, evidence: Sequence[Evidence]) -> Iterator[Section]:
    costs = costs_of_calls(table, evidence)
    curves = [
        Line(name=one.name, title=one.titled(len(one.seeds)), points=points)
        for one in evidence
        if one.name in costs
        and len(points := [(cost, Mark.of(bits)) for cost, bits in one.learning(costs[one.name]) if cost > 0]) > 1
    ]
    if curves:
        in_flops = any(cost != 1 for cost in costs.values())
        x = Axis(label="FLOPs of training" if in_flops else "network evaluations of training", log=True)
        svg = lines("learning", "Held-out bits/dim against training compute", curves, x, _BITS, _cast(table))
        across = (
            "operations of training" if in_flops else "evaluations of an expert, forward and backward, one image each"
        )
        lacking = [one.title for one in evidence if one.name not in costs]
        left_out = f" Not shown: {', '.join(lacking)}." if lacking else ""
        caption = (
            f"The bound on some held-out images, the same for every variant, while training, {_BANDS}. "
            f"Across: {across}; where a line lies below another at the same place, it bought more. A longer run's "
            f"learning rate is still high where a shorter one ends, which speaks for the shorter one.{left_out}"
        )
        yield Section("Learning", [Figure("bits/dim against training compute", caption, svg)])


_BITS = Axis(label="held-out bits/dim")
_BANDS = "mean over seeds in the band of its 95 % t-intervals, each place by itself"


def _noise(table: Table, evidence: Sequence[Evidence]) -> Iterator[Section]:
    figures, cast = [], _cast(table)
    base = next((one for one in evidence if one.name == table.baseline), None)
    if base is not None:
        curves = [line for one in evidence if one is not base and (line := _minus(one, base)) is not None]
        if curves:
            y = Axis(label=f"minus {base.name}, bits/dim per unit log-SNR")
            title = "The bound by noise level, against the baseline"
            svg = lines("noise", title, curves, NOISE, y, cast, level=0.0)
            caption = (
                f"Below zero: fewer bits than the baseline at that noise level; the same noise for both, {_BANDS}."
            )
            figures.append(Figure("Where over the noise levels", caption, svg))
    routed = [one for one in evidence if one.seeds and one.seeds[0].diagnostics.router_accuracy]
    curves = [line for one in routed if (line := _router(one)) is not None]
    if curves:
        svg = lines("router", "Router accuracy", curves, NOISE, Axis(label="routing accuracy"), cast)
        caption = (
            f"How often the largest gate weight is on the expert of the image's own slice, {_BANDS}. "
            "Chance is one over the number of experts, and a gate that sends every image to one expert hits that "
            "expert's slice: below the largest slice's share no routing is shown. Where several weigh alike they share "
            "the hit."
        )
        figures.append(Figure("Router accuracy over noise level", caption, svg))
    yield Section("Over noise levels", figures)


def _minus(one: Evidence, base: Evidence) -> Line | None:
    """The density of the bound minus the baseline's, seed by seed, and the mean of that."""
    theirs = {seed.seed: seed.diagnostics.bound_by_log_snr for seed in base.seeds}
    found: list[list[float]] = []
    grid = None
    for seed in one.seeds:
        own, other = seed.diagnostics.bound_by_log_snr, theirs.get(seed.seed)
        if own is not None and other is not None and own.log_snr == other.log_snr:
            found.append([a - b for a, b in zip(own.merged, other.merged, strict=True)])
            grid = own.log_snr
    if grid is None:
        return None
    return _line(one, grid, found)


def _line(one: Evidence, across: Sequence[float], seeds: Sequence[Sequence[float]]) -> Line:
    """From one row of values per seed."""
    marks = [Mark.of(values) for values in zip(*seeds, strict=True)]
    return Line(name=one.name, title=one.titled(len(seeds)), points=list(zip(across, marks, strict=True)))


def _router(one: Evidence) -> Line | None:
    found = [seed.diagnostics.router_accuracy for seed in one.seeds]
    known = [router for router in found if router is not None and None not in router.accuracy]
    if not known:
        return None
    return _line(one, known[0].log_snr, [[hit for hit in router.accuracy if hit is not None] for router in known])


def _samples(evidence: Sequence[Evidence]) -> Iterator[Section]:
    """Of the first seed that all variants with samples have, so that the noise is the same."""
    at = [{seed.seed: seed.samples_png for seed in one.seeds} for one in evidence]
    common = set.intersection(*(set(pictures) for pictures in at if pictures)) if any(at) else set()
    figures = []
    for one, pictures in zip(evidence, at, strict=True):
        png = pictures.get(min(common)) if common else None
        if png is not None:
            figures.append(Figure(one.title, f"{one.title}, seed {min(common)}", png=png))
    yield Section("Samples from the same noise", figures, "pictures")


# --- one variant ------------------------------------------------------------------------------------------------------


def _of_variant(k: int, one: Evidence) -> Iterator[Figure]:
    """Gate and experts of the first finished seed."""
    if not one.seeds:
        return
    d, seed = one.seeds[0].diagnostics, one.seeds[0].seed
    names = d.slices.names if d.slices else []
    if d.gate_weights and len(d.gate_weights.mean[0]) > 1:
        yield Figure("Gate weights over noise level", f"Seed {seed}.", plots.gate_weights(f"gate-{k}", d.gate_weights))
    if d.expert_usage and len(d.expert_usage) > 1:
        yield Figure("Expert usage", f"Seed {seed}.", plots.expert_usage(f"usage-{k}", d.expert_usage))
    if d.expert_slice_bits:
        columns = names or [f"slice {s}" for s in range(len(d.expert_slice_bits.merged))]
        svg = plots.slice_matrix(f"matrix-{k}", d.expert_slice_bits, columns)
        yield Figure("Expert × slice", f"Bound in bits/dim, seed {seed}; bold: the slice's best expert.", svg)
    if d.router_accuracy:
        svg = plots.router_accuracy(f"router-{k}", d.router_accuracy, names)
        yield Figure("Router accuracy by slice", f"Seed {seed}.", svg)
