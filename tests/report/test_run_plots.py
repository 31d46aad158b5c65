"""Every plot of a run's page shows the numbers of its files, at their places on the axes."""

import json

import numpy as np
import pytest
from small_run import LOG_SNR, SLICES, make_folder
from svg_plot import plots_of

from moeframe.report.run import plots
from moeframe.report.run.page import write_report
from moeframe.report.run.trade_off import SweepPoint, TradeOff, trade_off
from moeframe.storage.results import read_results

NEAR = 2e-3
"""Of a plot's range: places in a picture have six digits, and its ticks too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("runs") / "digits-soft")


@pytest.fixture(scope="module")
def shown(folder):
    return plots_of(write_report(folder).read_text())


@pytest.fixture(scope="module")
def facts(folder):
    return json.loads((folder / "seed-0/diagnostics.json").read_text())


def near(values):
    return pytest.approx(np.array(values, dtype=float), abs=NEAR * float(np.ptp(np.array(values, dtype=float))) or NEAR)


def values(plot, gid):
    across, up = zip(*plot.line(gid), strict=True)
    return np.array(across), np.array(up)


def events(folder, phase, kind):
    lines = [json.loads(line) for line in (folder / "seed-0/events.jsonl").read_text().splitlines()]
    return [line for line in lines if (line["phase"], line["kind"]) == (phase, kind)]


def test_every_plot_of_the_page_is_checked_here(shown):
    assert set(shown) == {
        "Learning curve",
        "Terms of the objective besides the likelihood",
        "Mean gate weight of each expert by noise level",
        "Use of each expert",
        "Router accuracy by noise level",
        "Test bits per dimension of each expert on each slice",
        "The bound by noise level",
        "Reconstructions over noise level",
    }


def test_the_learning_curve_shows_the_loss_of_each_expert_and_the_validation_bound(folder, shown):
    plot = shown["Learning curve"]  # the first on the page: the warm start
    training, validation = events(folder, "warm_start", "train"), events(folder, "warm_start", "validation")
    for k in range(4):
        steps, losses = plots._binned([(each["step"], each["experts"][k]) for each in training])
        across, up = values(plot, f"expert-{k}")
        assert across == near(steps)
        assert up == near(losses)
    across, up = values(plot, "validation")
    assert across == near([each["step"] for each in validation])
    assert up == near([each["bits_per_dim"] for each in validation])


def test_the_terms_of_the_objective_are_shown_before_their_weights(folder, shown):
    plot = shown["Terms of the objective besides the likelihood"]
    for k, name in enumerate(("load_balance", "entropy")):
        points = [(each["step"], each["terms"][name]["value"]) for each in events(folder, "joint", "train")]
        steps, expected = plots._binned(points)
        across, up = values(plot, f"term-{k}")
        assert across == near(steps)
        assert up == near(expected)


def test_the_height_of_each_area_is_the_weight_of_its_expert(facts, shown):
    plot = shown["Mean gate weight of each expert by noise level"]
    means = np.array(facts["gate_weights"]["mean"])
    for k in range(4):
        area = plot.area(f"expert-{k}")
        assert sorted(area) == pytest.approx(LOG_SNR, abs=0.03)
        assert [area[x] for x in sorted(area)] == pytest.approx(means[:, k], abs=NEAR)


def test_the_height_of_each_bar_is_the_use_of_its_expert(facts, shown):
    plot = shown["Use of each expert"]
    for k, use in enumerate(facts["expert_usage"]):
        left, right, bottom, top = plot.bar(f"expert-{k}")
        assert (left + right) / 2 == pytest.approx(k, abs=0.01)
        assert bottom == pytest.approx(0, abs=1e-3)
        assert top == pytest.approx(use, abs=1e-3)
        assert f"{use:.3f}" in plot.texts()


def test_router_accuracy_is_that_of_all_images_and_of_each_slice(facts, shown):
    plot, router = shown["Router accuracy by noise level"], facts["router_accuracy"]
    for gid, expected in [
        ("all", router["accuracy"]),
        *((f"slice-{k}", [row[k] for row in router["per_slice"]]) for k in range(4)),
    ]:
        across, up = values(plot, gid)
        assert across == near(router["log_snr"])
        assert up == near(expected)
    assert set(SLICES) <= set(plot.texts())


def test_the_matrix_has_experts_as_rows_and_slices_as_columns(facts, shown):
    plot, bits = shown["Test bits per dimension of each expert on each slice"], facts["expert_slice_bits"]
    rows = [*bits["matrix"], bits["merged"]]
    places = {}
    for row, line in enumerate(rows):
        for column, value in enumerate(line):
            text, x, y = plot.text_at(f"cell-{row}-{column}")
            assert text == f"{value:.3f}"
            places[row, column] = (x, y)
    assert bits["matrix"] != np.array(bits["matrix"]).T.tolist(), "or a transposed matrix would pass"
    for column in range(4):
        assert len({round(places[row, column][0], 2) for row in range(5)}) == 1
    assert sorted(range(5), key=lambda row: places[row, 0][1]) == [0, 1, 2, 3, 4], "the merged model is last"
    assert sorted(range(4), key=lambda column: places[0, column][0]) == [0, 1, 2, 3]
    texts = plot.texts()
    assert [text for text in texts if text in SLICES] == SLICES
    assert [text for text in texts if text.startswith("expert")] == [f"expert {k}" for k in range(4)]


def test_the_bound_by_noise_level_is_that_of_the_merge_and_of_each_expert(facts, shown):
    plot, bound = shown["The bound by noise level"], facts["bound_by_log_snr"]
    for gid, expected in [("merged", bound["merged"]), *((f"expert-{k}", bound["experts"][k]) for k in range(4))]:
        across, up = values(plot, gid)
        assert across == near(bound["log_snr"])
        assert up == near(expected)


def test_the_curve_of_reconstructions_is_in_the_table(folder, shown):
    parts = read_results(folder / "results.json").metrics["psnr"].parts
    expected = sorted((float(name.removeprefix("log_snr ")), part.mean) for name, part in parts.items())
    across, up = values(shown["Reconstructions over noise level"], "metric")
    assert across == near([x for x, _ in expected])
    assert up == near([y for _, y in expected])


def test_the_sweep_has_bits_across_and_quality_up():
    points = [
        SweepPoint(name=name, eta=eta, bits_per_dim=bits, standard_error=0.01, quality=quality, pareto=True)
        for name, eta, bits, quality in (
            ("switch", -1.0, 2.1, 30.0),
            ("switch", 0.0, 2.0, 25.0),
            ("switch", 1.0, 2.2, 20.0),
            ("merge", 0.2, 1.95, 24.0),
            ("expert 0 alone", None, 2.4, 22.0),
        )
    ]
    sweep = TradeOff(quality_name="frechet", quality_unit="", quality_better="lower", how="", points=points)
    [plot] = plots_of(trade_off("sweep", sweep)).values()
    across, up = values(plot, "sweep")
    assert across == near([2.1, 2.0, 1.95, 2.2])
    assert up == near([30.0, 25.0, 24.0, 20.0])
    [(x, y)] = plot.marks("model-1")
    assert (x, y) == (pytest.approx(1.95, abs=1e-3), pytest.approx(24.0, abs=0.05))
    assert plot.texts()[-2:] != []
    assert "Fréchet (lower is better)" in plot.texts()
