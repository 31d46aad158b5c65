"""The figures of a study's page: trade-offs, learning, noise levels, samples, and each variant's gate and experts."""

from collections.abc import Iterator, Sequence

from moeframe.report.run import plots
from moeframe.report.run.page import Figure, Section
from moeframe.report.study.curves import costs_of_calls
from moeframe.report.study.plots import NOISE, Axis, Line, Mark, Point, both_widths, lines, scatter
from moeframe.report.study.record import Evidence
from moeframe.report.study.rows import Cell, Column, Row, Table
from moeframe.report.study.styles import VariantStyles
from moeframe.report.study.verdicts import leading_column


def headline(table: Table, styles: VariantStyles) -> Figure | None:
    """Return the leading metric against quality, or None without two such metrics."""
    lead, quality = leading_column(table), table.leading("quality")
    if lead is None or quality is None or lead is quality:
        return None
    return _scatter("headline", table, lead, quality, styles, wide=True)


def trade_offs(table: Table, styles: VariantStyles) -> Section:
    """Return the leading metric against further metrics of quality, and quality against each cost."""
    lead, quality = leading_column(table), table.leading("quality")
    further = [c for c in table.columns if c.role == "quality" and c is not quality and c is not lead and not c.exact]
    found = [_scatter(f"lead-{k}", table, lead, column, styles) for k, column in enumerate(further) if lead]
    costs = [column for column in table.columns if column.role == "cost"]
    main = quality or lead
    if main is not None:
        found += [_scatter(f"cost-{k}", table, cost, main, styles, log=True) for k, cost in enumerate(costs)]
    return Section("Other trade-offs", [figure for figure in found if figure is not None])


def _scatter(
    name: str, table: Table, x: Column, y: Column, styles: VariantStyles, *, log: bool = False, wide: bool = False
) -> Figure | None:
    points = [
        Point(name=row.name, title=_titled(row, row.cells[x.name], row.cells[y.name]), x=across, y=up)
        for row in table.rows
        if (across := _mark(row.cells[x.name])) and (up := _mark(row.cells[y.name]))
    ]
    if not points or (log and min(point.x.mean for point in points) <= 0):
        return None
    title = f"{y.title} against {x.title}"

    def draw_one(name: str, *, wide: bool) -> str:
        return scatter(name, title, points, _axis(x, log=log), _axis(y), styles, wide=wide)

    svg = both_widths(draw_one, name) if wide else draw_one(name, wide=False)
    return Figure(title, "Means with 95 % t-intervals over seeds.", svg)


def _titled(row: Row, *cells: Cell) -> str:
    n = min(cell.n_seeds for cell in cells)
    return row.title if n == row.seeds else f"{row.title} ({n} of {row.seeds} seeds)"


def _mark(cell: Cell) -> Mark | None:
    return None if cell.mean is None else Mark(mean=cell.mean, interval=cell.interval)


def _axis(column: Column, *, log: bool = False) -> Axis:
    unit = column.unit if len(column.unit) < 24 and column.unit != column.title else ""
    return Axis(label=f"{column.title}{f', {unit}' if unit else ''} ({column.better} is better)", log=log)


_BITS = Axis(label="validation bits/dim")
_BANDS = "Mean over seeds; band: pointwise 95 % t-interval of the labelled variants"


def learning(table: Table, evidence: Sequence[Evidence], styles: VariantStyles) -> Section:
    """Return the validation bound against training compute."""
    costs = costs_of_calls(table, evidence)
    curves = [
        Line(name=one.name, title=one.titled(len(one.seeds)), points=points)
        for one in evidence
        if one.name in costs
        and len(points := [(cost, Mark.of(bits)) for cost, bits in one.learning(costs[one.name]) if cost > 0]) > 1
    ]
    if not curves:
        return Section("Learning curves")
    in_flops = any(cost != 1 for cost in costs.values())
    x = Axis(label="training FLOPs" if in_flops else "training calls (one image each)", log=True)
    title = "Validation bits/dim against training compute"
    missing = [one.title for one in evidence if one.name not in costs]
    left_out = f" Not shown: {', '.join(missing)}." if missing else ""
    caption = (
        f"Lower at equal compute is better. {_BANDS}. Before the end of a training its learning rate is still "
        f"high, which favours the shorter training.{left_out}"
    )

    def draw_one(name: str, *, wide: bool) -> str:
        return lines(name, title, curves, x, _BITS, styles, wide=wide)

    return Section("Learning curves", [Figure(title, caption, both_widths(draw_one, "learning"))])


def over_noise(table: Table, evidence: Sequence[Evidence], styles: VariantStyles) -> Section:
    """Return the bound against the baseline and the router accuracy, by noise level."""
    figures = []
    base = next((one for one in evidence if one.name == table.baseline), None)
    if base is not None:
        bound = [line for one in evidence if one is not base and (line := _minus(one, base)) is not None]
        if bound:
            y = Axis(label="difference, bits/dim per unit log-SNR")
            title = f"Bound by noise level, minus {base.title}"
            caption = f"Below zero: fewer bits than the baseline. The same noise for all. {_BANDS}."
            figures.append(_lines("noise", title, caption, bound, y, styles, level=0.0))
    routed = [one for one in evidence if one.seeds and one.seeds[0].diagnostics.router_accuracy]
    curves = [line for one in routed if (line := _router(one)) is not None]
    if curves:
        caption = (
            "How often the largest gate weight is on the expert of the image's own slice; experts of equal weight "
            f"share the hit. Chance is 1/K, or the share of the largest slice for a gate that always picks one expert. "
            f"{_BANDS}."
        )
        title = "Router accuracy by noise level"
        figures.append(_lines("router", title, caption, curves, Axis(label="router accuracy"), styles))
    return Section("By noise level", figures)


def _lines(
    name: str,
    title: str,
    caption: str,
    curves: Sequence[Line],
    y: Axis,
    styles: VariantStyles,
    level: float | None = None,
) -> Figure:
    def draw_one(name: str, *, wide: bool) -> str:
        return lines(name, title, curves, NOISE, y, styles, level, wide=wide)

    return Figure(title, caption, both_widths(draw_one, name))


def _minus(one: Evidence, base: Evidence) -> Line | None:
    """Return the density of the bound minus that of the baseline, paired by seed."""
    theirs = {seed.seed: seed.diagnostics.bound_by_log_snr for seed in base.seeds}
    found: list[list[float]] = []
    grid = None
    for seed in one.seeds:
        own, other = seed.diagnostics.bound_by_log_snr, theirs.get(seed.seed)
        if own is not None and other is not None and own.log_snr == other.log_snr:
            found.append([a - b for a, b in zip(own.merged, other.merged, strict=True)])
            grid = own.log_snr
    return None if grid is None else _line(one, grid, found)


def _line(one: Evidence, across: Sequence[float], seeds: Sequence[Sequence[float]]) -> Line:
    """Return a line from one row of values per seed."""
    marks = [Mark.of(values) for values in zip(*seeds, strict=True)]
    return Line(name=one.name, title=one.titled(len(seeds)), points=list(zip(across, marks, strict=True)))


def _router(one: Evidence) -> Line | None:
    found = [seed.diagnostics.router_accuracy for seed in one.seeds]
    known = [router for router in found if router is not None and None not in router.accuracy]
    if not known:
        return None
    return _line(one, known[0].log_snr, [[hit for hit in router.accuracy if hit is not None] for router in known])


def samples(evidence: Sequence[Evidence]) -> Section:
    """Return samples of the first seed that all variants with samples share, so that the noise is the same."""
    at = [{seed.seed: seed.samples_png for seed in one.seeds if seed.samples_png} for one in evidence]
    common = set.intersection(*(set(pictures) for pictures in at if pictures)) if any(at) else set()
    figures = []
    for one, pictures in zip(evidence, at, strict=True):
        png = pictures.get(min(common)) if common else None
        if png is not None:
            figures.append(Figure(one.title, f"{one.title}, seed {min(common)}", png=png))
    return Section("Samples from the same noise", figures, "pictures")


def of_variant(k: int, one: Evidence) -> Iterator[Figure]:
    """Yield gate and experts of the first finished seed."""
    if not one.seeds:
        return
    d, seed = one.seeds[0].diagnostics, one.seeds[0].seed
    names = d.slices.names if d.slices else []
    if d.gate_weights and len(d.gate_weights.mean[0]) > 1:
        yield Figure("Gate weights by noise level", f"Seed {seed}.", plots.gate_weights(f"gate-{k}", d.gate_weights))
    if d.expert_usage and len(d.expert_usage) > 1:
        yield Figure("Expert usage", f"Seed {seed}.", plots.expert_usage(f"usage-{k}", d.expert_usage))
    if d.expert_slice_bits:
        columns = names or [f"slice {s}" for s in range(len(d.expert_slice_bits.merged))]
        svg = plots.slice_matrix(f"matrix-{k}", d.expert_slice_bits, columns)
        yield Figure("Expert × slice", f"Bound in bits/dim, seed {seed}; bold: the best expert of the slice.", svg)
    if d.router_accuracy:
        svg = plots.router_accuracy(f"accuracy-{k}", d.router_accuracy, names)
        yield Figure("Router accuracy by slice", f"Seed {seed}.", svg)
