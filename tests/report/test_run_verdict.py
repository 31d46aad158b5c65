"""The verdict of a run: its likelihood beside a uniform model's, its quality beside the reference distance."""

import json
import re

import pytest
from small_run import make_folder

from moeframe.report.run.page import write_report
from moeframe.report.run.verdict import verdict
from moeframe.report.titles import key_title, metric_titles
from moeframe.storage.results import combine_seeds


def metric(value, role, **facts):
    measured = {"value": value, "unit": "bits/dim", "better": "lower", "role": role, "n": 449, "how": {}, "parts": {}}
    return measured | facts


def results(metrics):
    return combine_seeds("a run", "0", {}, {0: metrics})


def lines(found):
    units = {name: one.unit for name, one in found.metrics.items()}
    return [(line.claim, line.numbers) for line in verdict(found, metric_titles(units))]


def test_the_verdict_has_value_interval_uniform_model_and_reference_distance():
    parts = {"real_against_real": 20.25, "at_floor_n": 48.5}
    found = results(
        {
            "parameters": metric(100.0, "cost", unit="parameters"),
            "bits_per_dim": metric(1.9, "likelihood", interval=[1.85, 1.95], how={"levels": 17}),
            "frechet": metric(52.0, "quality", unit="Fréchet distance, x features", parts=parts),
        }
    )
    assert lines(found) == [
        ("1.900 bits/dim (1.850 to 1.950, 95\u00a0%)", ("A uniform model needs log2(17) = 4.087 bits/dim.",)),
        (
            "Fréchet distance 52, no interval",
            ("Train/test reference distance: 20.25.", "At the N of the reference: 48.5."),
        ),
    ]


def test_a_metric_of_a_third_party_leads_by_its_role():
    found = results({"latency": metric(3.0, "cost", unit="ms"), "sharp_edges": metric(0.5, "quality", unit="edges")})
    assert lines(found) == [("sharp edges 0.5, no interval", ())]


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("at_floor_n", "reference distance at matched N"),
        ("real_against_real", "train/test reference distance"),
        ("log_snr_range", "log-SNR range"),
        ("somebodys_own_key", "somebodys own key"),
    ],
)
def test_a_reader_sees_titles(key, title):
    assert key_title(key) == title


def test_no_key_of_the_files_is_on_the_page(tmp_path):
    folder = make_folder(tmp_path / "run", seeds=(0,))
    data = json.loads((folder / "results.json").read_text())
    one = data["metrics"]["frechet_efficientnet"]
    one["parts"] = {key: {"mean": 1.0, "per_seed": [1.0]} for key in ("real_against_real", "at_floor_n")}
    one["how"]["caution"] = "compare at_floor_n with real_against_real"
    (folder / "results.json").write_text(json.dumps(data))
    page = write_report(folder).read_text()
    seen = re.sub(r"<(style|script|pre).*?</\1>|<[^>]+>", " ", page, flags=re.S)
    assert re.findall(r"\b[a-z]+_[a-z_]+\b", seen.split("Details")[0]) == ["pt_inception"], "a file's name in a message"
    assert "compare “reference distance at matched N” with “train/test reference distance”" in page


def test_samples_stand_above_the_metrics(tmp_path):
    page = write_report(make_folder(tmp_path / "run", k=1, seeds=(0,))).read_text()
    assert page.index('aria-label="Verdict"') < page.index("<h2>Samples</h2>") < page.index("<h2>Metrics</h2>")
