"""Every plot of a study's page shows the numbers of its table and of its runs, at their places on the axes."""

import json
import re
import statistics

import pytest
from small_study import LOG_SNR, SEEDS, row, write_study_folder
from svg_plot import plots_of

from moeframe.report.study.curves import costs_of_calls
from moeframe.report.study.page import write_study
from moeframe.report.study.record import evidence_of, refreshed

pytestmark = pytest.mark.slow
NAMES = "ABCD"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study_folder(tmp_path_factory.mktemp("study") / "little")


@pytest.fixture(scope="module")
def table(folder):
    return write_study(folder)


@pytest.fixture(scope="module")
def page(folder, table):
    return (folder / "study.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(page):
    return plots_of(page)


def diagnostics(folder, name, seed):
    return json.loads((folder / f"runs/{name}/{seed}/seed-{seed}/diagnostics.json").read_text())


def seeds_of(table, name):
    return [seed for seed in SEEDS if not (name == "C" and seed == 5)]


def test_every_plot_of_the_page_is_checked_here(shown):
    assert set(shown) == {
        "Fréchet distance against bits/dim",
        "Fréchet distance against parameters",
        "Fréchet distance against active parameters",
        "Fréchet distance against latency",
        "Validation bits/dim against training compute",
        "Bound by noise level, minus A: single expert",
        "Router accuracy by noise level",
        # of each variant: the same functions as on a run's page, where their numbers are read
        "Mean gate weight of each expert by noise level",
        "Use of each expert",
        "Test bits per dimension of each expert on each slice",
    }


@pytest.mark.parametrize(
    ("title", "x", "y"),
    [
        ("Fréchet distance against bits/dim", "bits_per_dim", "frechet"),
        ("Fréchet distance against parameters", "parameters", "frechet"),
        ("Fréchet distance against active parameters", "parameters, active", "frechet"),
        ("Fréchet distance against latency", "latency", "frechet"),
    ],
)
def test_a_scatter_has_the_means_of_the_table_at_their_places(table, shown, title, x, y):
    plot = shown[title]
    labels = [text for text in plot.texts() if "is better" in text]
    assert labels[0].startswith(next(c.title for c in table.columns if c.name == x))
    assert labels[1].startswith(next(c.title for c in table.columns if c.name == y))
    for k, name in enumerate(NAMES):
        [(across, up)] = plot.marks(f"point-{k}")
        assert across == pytest.approx(row(table, name).cells[x].mean, rel=0.01), name
        assert up == pytest.approx(row(table, name).cells[y].mean, rel=0.01), name


def test_both_widths_of_a_plot_show_the_same(page):
    both = re.findall(r'<svg role="img" aria-label="Fréchet distance against bits/dim".*?</svg>', page, re.S)
    wide, narrow = (next(iter(plots_of(svg).values())) for svg in both)
    for k in range(4):
        [one], [other] = wide.marks(f"point-{k}"), narrow.marks(f"point-{k}")
        assert one == pytest.approx(other, rel=0.01)


def test_learning_curves_have_compute_across_and_the_validation_bound_up(folder, table, shown):
    plot = shown["Validation bits/dim against training compute"]
    evidence = evidence_of(*refreshed(folder))
    costs = costs_of_calls(table, evidence)
    for k, one in enumerate(evidence):
        expected = [(cost, statistics.mean(bits)) for cost, bits in one.learning(costs[one.name])]
        assert len(plot.marks(f"line-{k}")) == len(expected) == 3
        for (x, y), (cost, bits) in zip(plot.marks(f"line-{k}"), expected, strict=True):
            assert x == pytest.approx(cost, rel=0.02)
            assert y == pytest.approx(bits, abs=0.005)


def test_the_difference_by_noise_level_is_the_variant_minus_the_baseline(folder, table, shown):
    plot = shown["Bound by noise level, minus A: single expert"]
    for k, name in enumerate("BCD"):
        for at, (x, y) in enumerate(plot.marks(f"line-{k}")):
            differences = [
                diagnostics(folder, name, seed)["bound_by_log_snr"]["merged"][at]
                - diagnostics(folder, "A", seed)["bound_by_log_snr"]["merged"][at]
                for seed in seeds_of(table, name)
            ]
            assert x == pytest.approx(LOG_SNR[at], abs=0.02)
            assert y == pytest.approx(statistics.mean(differences), abs=5e-4)
    assert min(y for _, y in plot.marks("line-0")) < -0.09, "B is better above log-SNR 0"


def test_router_accuracy_is_the_mean_over_seeds(folder, table, shown):
    plot = shown["Router accuracy by noise level"]
    for k in range(3):
        for x, y in zip(LOG_SNR, plot.marks(f"line-{k}"), strict=True):
            assert y == (pytest.approx(x, abs=0.02), pytest.approx(0.5, abs=2e-3))


def test_the_plots_of_a_variant_are_of_its_first_seed(folder, shown):
    facts = diagnostics(folder, "B", 0)
    for k, use in enumerate(facts["expert_usage"]):
        assert shown["Use of each expert"].bar(f"expert-{k}")[3] == pytest.approx(use, abs=1e-3)
        area = shown["Mean gate weight of each expert by noise level"].area(f"expert-{k}")
        assert list(area.values()) == pytest.approx([line[k] for line in facts["gate_weights"]["mean"]], abs=2e-3)
    matrix = shown["Test bits per dimension of each expert on each slice"]
    for expert, line in enumerate(facts["expert_slice_bits"]["matrix"]):
        cells = [matrix.text_at(f"cell-{expert}-{k}") for k in range(len(line))]
        assert [text for text, _, _ in cells] == [f"{value:.3f}" for value in line]
        assert cells[0][1] < cells[1][1], "slices go across"


def test_the_forest_plot_has_each_difference_and_interval_at_its_place(table, page):
    for column in table.columns:
        if column.exact:
            continue
        html = re.search(rf'<ol class="forest" data-forest="{re.escape(column.title)}">.*?</ol>', page, re.S)[0]
        ticks = [
            (float(at), float(text.replace(",", "")))
            for at, text in re.findall(r'<span style="left: ([\d.]+)%">([^<]+)</span>', html)
        ]
        (low, first), (high, last) = ticks[0], ticks[-1]
        assert low < high
        assert first < last, "values rise to the right, as the words below the axis say"
        assert "← better" in html if column.better == "lower" else "better →" in html
        value = lambda at, a=low, b=high, f=first, g=last: f + (float(at) - a) / (b - a) * (g - f)  # noqa: E731
        rows = re.findall(r"<li data-hint.*?</li>", html, re.S)
        compared = {each.title: one for each in table.rows if (one := each.cells[column.name].against)}
        assert len(rows) == len(compared) == 3
        shown = {}
        for text in rows:
            title = re.search(r'<span class="name">(.*?)</span>', text)[1].replace("&amp;", "&")
            title = title.replace("&lt;", "<").replace("&gt;", ">")
            one = compared[title]
            [at] = re.findall(r'<svg class="at" x="([\d.]+)%"', text)
            [ends] = re.findall(r'class="interval [^"]*" x1="([\d.]+)%" x2="([\d.]+)%"', text)
            tolerance = 0.01 * abs(last - first)
            assert value(at) == pytest.approx(one.difference, abs=tolerance)
            assert [value(end) for end in ends] == pytest.approx(one.interval, abs=tolerance)
            shown[title] = value(at)
        assert list(shown.values()) == sorted(shown.values(), reverse=column.better == "higher"), "the best first"


def test_the_table_shows_the_means_that_the_plots_show(table, page):
    html = re.search(r'<table id="comparison".*?</table>', page, re.S)[0]
    for name in NAMES:
        line = re.search(rf'<tr data-name="{name}".*?</tr>', html, re.S)[0]
        shown = re.findall(r'data-value="([^"]*)" data-hint', line)
        assert [float(value) for value in shown] == [row(table, name).cells[c.name].mean for c in table.columns]
