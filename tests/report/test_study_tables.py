"""The table of a study: it marks a difference only where the seeds support it, and says what it lacks."""

import csv
import io

import pytest
from rich.console import Console

from moeframe.report.study.comparison_table import table_of
from moeframe.report.study.formats import as_csv, as_latex, as_markdown, shown_cell, shown_difference
from moeframe.report.study.sentences import in_short, sentences
from moeframe.report.terminal import study_tables
from moeframe.report.titles import key_title


def record_of(values, lacking=()):
    """study.json of made-up figures: variant -> one value per seed."""
    n = len(next(iter(values.values())))
    rows = []
    for name, figures in values.items():
        runs = [
            {
                "seed": seed,
                "status": "failed" if (name, seed) in lacking else "finished",
                "cause": "out of memory" if (name, seed) in lacking else "",
                "metrics": {}
                if (name, seed) in lacking
                else {"bits": {"mean": figure, "unit": "bits/dim", "better": "lower"}},
            }
            for seed, figure in enumerate(figures)
        ]
        rows.append({"name": name, "title": f"Model {name}", "training_calls": 10, "runs": runs})
    return {"name": "made up", "dataset": "none", "baseline": "A", "seeds": list(range(n)), "variants": rows}


A = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0]


def test_a_table_marks_a_difference_only_where_the_seeds_support_it():
    better = [a - 0.1 + 0.002 * i for i, a in enumerate(A)]
    same = [a + 0.01 * (-1) ** i for i, a in enumerate(A)]
    table = table_of(record_of({"A": A, "B": better, "C": same}))
    cells = {row.name: row.cells["bits"] for row in table.rows}
    assert cells["B"].against.verdict == "better"
    assert cells["B"].best
    assert cells["C"].against.verdict == "no difference shown"
    assert cells["A"].against is None
    said = sentences(table)
    assert said[0].startswith(
        "Model B vs Model A, bits: significantly better; difference -0.0950 bits/dim, 95 % interval -0.09"
    )
    assert "n = 6 seeds, Holm-adjusted p = " in said[0]
    assert "not significant; difference" in said[1]


def test_what_real_images_score_comes_with_how_many_they_are():
    record = record_of({"A": A[:2], "B": A[:2]})
    how = {"real_against_real": "all 449 test images against 449 of the train images: what real images score"}
    for row in record["variants"]:
        for one in row["runs"]:
            floor = {"real_against_real": {"mean": 16.0 + one["seed"]}}
            one["metrics"]["bits"] |= {"n": 1300 if row["name"] == "A" else 449, "how": how, "parts": floor}
    assert table_of(record).columns[0].caution == (
        "train/test reference distance 16.5, mean over seeds (all 449 test images against 449 of the train images), "
        "not a floor at N = 1300"
    )
    record["variants"] = record["variants"][1:]
    assert table_of({**record, "baseline": "B"}).columns[0].caution.endswith("449 of the train images)")


def test_figures_that_were_computed_otherwise_are_not_compared():
    record = record_of({"B": [a - 0.5 for a in A], "A": A, "C": A})
    for row in record["variants"]:
        for one in row["runs"]:
            how = {
                "method": "ode" if row["name"] == "B" else "continuous",
                "log_snr_range": [-8, 7],
                "sampler": row["name"],
            }
            one["metrics"]["bits"]["how"] = how
    table = table_of(record)
    cells = {row.name: row.cells["bits"] for row in table.rows}
    assert table.columns[0].basis == {"method": "continuous", "log_snr_range": [-8, 7]}, "the baseline's"
    assert cells["B"].mean is None
    assert cells["B"].why_not == "measured with different settings: method ode vs continuous"
    assert cells["C"].against.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("steps", (10, 1000)),
        ("dequantisation", ("uniform", "truncated_normal")),
        ("weights_sha256", ("6726825d", "0123abcd")),
        ("chosen", ("all 449 test images", "256 of 449 test images")),
        ("preprocessing", ("resized to 64", "resized to 96")),
    ],
)
def test_what_a_figure_was_computed_with_decides_whether_it_is_compared(key, values):
    record = record_of({"A": A, "B": A})
    for row, value in zip(record["variants"], values, strict=True):
        for one in row["runs"]:
            one["metrics"]["bits"]["how"] = {key: value}
    cell = table_of(record).rows[1].cells["bits"]
    assert cell.mean is None
    assert cell.why_not == f"measured with different settings: {key_title(key)} {values[1]} vs {values[0]}"


def computed(record, name, seed, how):
    """The record, the figure of that run computed so."""
    [row] = [row for row in record["variants"] if row["name"] == name]
    row["runs"][seed]["metrics"]["bits"]["how"] = how
    return record


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"levels": 17}, ""),
        ({"levels": 17, "chosen": "all 449 test images"}, ""),
        (
            {"chosen": "256 of 449 test images"},
            "measured with different settings: images chosen 256 of 449 test images vs not recorded",
        ),
    ],
)
def test_what_one_side_alone_says_keeps_figures_apart_only_where_it_must(how, why):
    """A version that did not say which images it chose took the first ones."""
    record = record_of({"A": A, "B": A})
    for seed in range(len(A)):
        computed(computed(record, "A", seed, {"levels": 17}), "B", seed, how)
    cell = table_of(record).rows[1].cells["bits"]
    assert cell.why_not == why
    assert (cell.mean is None) == bool(why)


def test_times_of_two_machines_are_compared_only_seed_by_seed():
    record = record_of({"A": A, "B": A})
    for seed in range(len(A)):
        how = {"device": "cuda", "device_name": "one" if seed < 3 else "other", "batch_size": 16}
        computed(computed(record, "A", seed, how), "B", seed, how)
    assert table_of(record).rows[1].cells["bits"].n_seeds == 6
    computed(record, "B", 4, {"device": "cpu", "device_name": "third", "batch_size": 16})
    cell = table_of(record).rows[1].cells["bits"]
    assert (cell.n_seeds, cell.against.n) == (5, 5)
    assert cell.missing == "seed 4: measured with different settings: device cpu vs cuda; device name third vs other"
    assert f"bits missing for Model B: {cell.missing}." in as_markdown(table_of(record))


def test_a_metric_that_no_run_has_is_named_with_its_reason():
    record = record_of({"A": A, "B": A})
    for row in record["variants"]:
        for one in row["runs"]:
            one["metrics"]["fid"] = {"unavailable": "no weights at ~/x.pth; get them"}
    text = as_markdown(table_of(record))
    assert "FID was not measured: no weights at ~/x.pth; get them." in text
    assert "| FID" not in text


def test_no_gain_passes_a_hundred_percent():
    """Fieller's inequality has solutions below a ratio of zero, which no figure has."""
    record = record_of({"A": [10.0, 20.0, 12.0], "B": [1.0, 30.0, 2.0]})
    against = table_of(record).rows[1].cells["bits"].against
    assert against.gain_interval[1] == 1.0
    assert against.gain_interval[0] < against.relative_gain < 1.0


def test_a_difference_over_fewer_seeds_says_so_wherever_it_stands():
    table = table_of(record_of({"A": A, "B": [a - 0.1 for a in A]}, lacking={("A", 2)}))
    assert table.rows[1].cells["bits"].against.incomplete == " [5 of 6 seeds]"
    for text in (as_markdown(table), as_latex(table), shown_difference(table.rows[1].cells["bits"].against)):
        assert "[5 of 6 seeds]" in text
    record = record_of({"A": A, "B": [a - 0.1 for a in A]}, lacking={("A", 2)})
    for row in record["variants"]:
        for one in row["runs"]:
            one["metrics"] = {"bits_per_dim": one["metrics"]["bits"]} if one["metrics"] else {}
    assert "[5 of 6 seeds]" in in_short(table_of(record))[1]


@pytest.mark.parametrize(
    ("flops", "said"),
    [
        ((8.0, 2.0), "The best other variant beats the baseline at 4 times the training compute: "),
        ((2.02, 2.0), "The best other variant beats the baseline at equal training compute: "),
        ((None, 2.0), "The best other variant beats the baseline: "),
    ],
)
def test_what_is_said_in_short_tells_the_cost_of_the_comparison(flops, said):
    record = record_of({"A": A, "B": [a - 0.1 for a in A]})
    for row in record["variants"]:
        for one in row["runs"]:
            one["metrics"] = {"bits_per_dim": one["metrics"]["bits"]}
    table = table_of(record)
    costs = dict(zip(("B", "A"), flops, strict=True))
    rows = [row.model_copy(update={"training_flops": costs[row.name]}) for row in table.rows]
    assert in_short(table.model_copy(update={"rows": rows}))[1].startswith(said)


@pytest.mark.parametrize("unit", ["dB", "KID, Inception features", "squared MMD, cubic kernel, made up features"])
def test_a_unit_without_ratios_has_no_relative_gain(unit):
    record = record_of({"A": A, "B": [a - 0.1 for a in A]})
    for row in record["variants"]:
        for one in row["runs"]:
            one["metrics"]["bits"]["unit"] = unit
    against = table_of(record).rows[1].cells["bits"].against
    assert (against.relative_gain, against.gain_interval) == (None, None)
    assert against.gain_method == f"none: ratios of {unit} are meaningless"


def test_a_variant_that_repeats_another_is_no_further_comparison():
    figures = {"A": A, "B": [a - 0.1 + 0.002 * i for i, a in enumerate(A)], "C": [a + 0.1 + 0.01 * a for a in A]}
    alone = table_of(record_of(figures))
    record = record_of({**figures, "twin": figures["B"], "again": A})
    record["compare"] = [["B", "C"], ["twin", "C"], ["B", "twin"]]
    for name, source in (("twin", "B"), ("again", "A")):
        next(row for row in record["variants"] if row["name"] == name)["same_as"] = source
    table = table_of(record)
    cells = {row.name: row.cells["bits"] for row in table.rows}
    assert cells["B"] == cells["twin"] == alone.rows[1].cells["bits"]
    assert cells["B"].best
    assert cells["again"].against is None
    pairs = {(pair.first, pair.second): pair.against["bits"] for pair in table.pairs}
    assert list(pairs) == [("B", "C"), ("twin", "C")]
    assert pairs["B", "C"] == pairs["twin", "C"]
    single = table_of({**record_of(figures), "compare": [["B", "C"]]})
    assert pairs["B", "C"].p_adjusted == single.pairs[0].against["bits"].p_adjusted


def test_few_seeds_are_underpowered_and_nothing_is_best():
    table = table_of(record_of({"A": A[:3], "B": [a - 0.5 for a in A[:3]]}))
    cell = table.rows[1].cells["bits"]
    assert (cell.against.verdict, cell.against.p_adjusted, cell.best) == ("underpowered", None, False)
    assert "significant" not in sentences(table)[0]
    assert "Fewer than 6 seeds: no significance is claimed; intervals are descriptive." in as_markdown(table)
    assert "†" in as_markdown(table)


def test_a_narrow_terminal_gets_a_table_in_parts_with_every_figure_whole():
    table = table_of(record_of({"A": A, "B": [a - 0.1 for a in A]}))
    shown = {}
    for width in (36, 200):
        console = Console(width=width, file=io.StringIO())
        parts = study_tables(table, width)
        for part in parts:
            console.print(part)
        shown[width] = (len(parts), console.file.getvalue())
    assert [shown[width][0] for width in (36, 200)] == [2, 1]
    for _, text in shown.values():
        assert "…" not in text
        assert shown_cell(table.rows[1].cells["bits"], seeds=6) in text


def test_a_row_that_lacks_a_seed_says_so_and_is_compared_over_the_common_ones():
    table = table_of(record_of({"A": A, "B": [a - 0.1 for a in A]}, lacking={("B", 4)}))
    row = table.rows[1]
    assert (row.finished, row.seeds, row.complete, row.failures) == (5, 6, False, ["seed 4: out of memory"])
    assert row.cells["bits"].n_seeds == 5
    assert row.cells["bits"].against.n == 5
    assert "n = 5 of 6 seeds" in sentences(table)[0]
    assert "| incomplete: 5 of 6 |" in as_markdown(table)


def test_the_csv_has_every_figure_and_the_latex_escapes():
    table = table_of(record_of({"A": A, "B_1": [a - 0.1 for a in A]}))
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [row["variant"] for row in rows] == ["A", "B_1"]
    assert float(rows[1]["difference"]) == pytest.approx(-0.1)
    assert rows[0]["difference"] == ""
    text = as_latex(table)
    assert r"Model B\_1" in text
    assert text.count(r"\\") == 5
    assert text.startswith(r"\begin{tabular}{lrrrr}")
    assert r"Model \textless{}B\textgreater{}" in as_latex(table_of(record_of({"A": A, "<B>": A})))
