import json
import math
from html.parser import HTMLParser

import pytest
import torch

from moeframe.errors import RunFolderError
from moeframe.report.numbers import format_figure
from moeframe.report.run import plots
from moeframe.report.run.page import write_report
from moeframe.report.terminal import cautions
from moeframe.storage.images import write_grid
from moeframe.storage.results import combine_seeds, read_results, write_results

LOG_SNR = [-10.0 + i for i in range(21)]
SLICES = ["digits 0-2", "digits 3-5", "digits 6-7", "digits <8-9> & $x"]


def bpd(value, k):
    return {
        "value": value,
        "unit": "bits/dim",
        "better": "lower",
        "n": 360,
        "how": {
            "estimator": "continuous-time variational bound (VDM)",
            "log_snr_range": [-10.0, 10.0],
            "interval_method": "95 % normal interval from the standard error over images",
            "per_expert": {f"expert {i}": 2.5 + i / 10 for i in range(k)},
            "note": "<script>alert('how')</script>",
        },
        "interval": [value - 0.02, value + 0.02],
        "parts": {"reconstruction": 0.011, "prior": 0.0021, "diffusion": value - 0.0131},
    }


def frechet(value):
    how = {"features": "EfficientNet-Lite0 (not Inception: this is not FID)", "real against real": 41.2}
    return {
        "value": value,
        "unit": "squared distance",
        "better": "lower",
        "n": 2000,
        "how": how,
        "interval": None,
        "parts": {},
    }


def psnr(value):
    parts = {f"log_snr {level}": value + 2 * level for level in (2, -2, 0)}
    return {**frechet(value), "unit": "dB", "better": "higher", "how": {"caution": "few images"}, "parts": parts}


def wave(phase, i):
    return 0.5 + 0.4 * math.sin(i / 4 + phase)


def events(k):
    lines = []
    for phase, steps in (("warm_start", 600), ("joint", 1200)):
        for step in range(0, steps, 2):
            loss = 2.2 + 6 * math.exp(-step / 80) + 0.3 * math.sin(step * 1.7)
            terms = {"nll": {"value": loss, "unit": "bits/dim", "weight": 1.0}}
            if k > 1 and phase == "joint":
                terms["load_balance"] = {"value": 0.2 * math.exp(-step / 200), "unit": "nats", "weight": 0.1}
                terms["entropy"] = {"value": 0.1 + step / 5000, "unit": "nats", "weight": 0.01}
            lines.append(
                {
                    "kind": "train",
                    "step": step,
                    "phase": phase,
                    "objective": loss,
                    "terms": terms,
                    "experts": [loss + i / 5 if phase == "warm_start" else None for i in range(k)],
                    "gradient_norm": 1.0,
                    "learning_rate": 1e-3,
                    "usage": [1 / k] * k,
                }
            )
        lines += [
            {
                "kind": "validation",
                "step": step,
                "phase": phase,
                "bits_per_dim": 2.3 + 5 * math.exp(-step / 90),
                "n": 360,
            }
            for step in range(100, steps + 1, 100)
        ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def diagnostics(k):
    always = {
        "bound_by_log_snr": {
            "log_snr": LOG_SNR,
            "merged": [0.3 * math.exp(-(x**2) / 20) for x in LOG_SNR],
            "experts": [[0.3 * math.exp(-((x - i) ** 2) / 22) + 0.01 * i for x in LOG_SNR] for i in range(k)],
            "unit": "bits/dim per unit log-SNR",
        },
        "reconstruction_log_snr": 0.0,
        "trajectory_log_snr": [-10.0, -6.0, -3.0, 0.0, 3.0, 10.0],
    }
    if k == 1:
        return always
    raw = [[math.exp(3 * wave(j, i)) for j in range(k)] for i in range(21)]
    return always | {
        "gate_weights": {"log_snr": LOG_SNR, "mean": [[w / sum(row) for w in row] for row in raw]},
        "expert_usage": [0.31, 0.27, 0.22, 0.2],
        "slices": {"names": SLICES, "train": [430, 410, 390, 207], "test": [100, 90, 95, 75]},
        "expert_slice_bits": {
            "matrix": [[2.2 + 0.45 * (i != j) + 0.05 * j for j in range(k)] for i in range(k)],
            "merged": [2.21, 2.25, 2.3, 2.36],
            "n": [100, 90, 95, 75],
        },
        "router_accuracy": {
            "log_snr": LOG_SNR,
            "accuracy": [0.25 + 0.7 / (1 + math.exp(-x)) for x in LOG_SNR],
            "per_slice": [[0.2 + 0.03 * j + 0.65 / (1 + math.exp(-x + j)) for j in range(k)] for x in LOG_SNR],
            "chance": 0.28,
        },
    }


def make_folder(folder, k=4, seeds=(0, 1, 2)):
    experts = f"experts:\n- {{type: unet, copies: {k}, width: 32}}\n"
    gate = "gate: {type: softmax}\n" if k > 1 else "gate: null\n"
    spec = f"# <b>bold</b>\nname: digits-soft\nseeds: {list(seeds)}\ndataset: {{type: digits}}\n{experts}{gate}"
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec)
    environment = {"python": "3.11.9", "torch": "2.5.1", "device": "cpu (2 threads)", "moeframe": "0.1.0"}
    (folder / "environment.json").write_text(json.dumps(environment))
    card = {
        "source": "UCI optical digits, https://archive.ics.uci.edu/dataset/80",
        "licence": "CC BY 4.0",
        "splits": {"train": 1437, "test": 360},
        "levels": 17,
        "transformations": ["none: the images are used as they are", "split by the seeded hash of the index"],
    }
    (folder / "card.json").write_text(json.dumps(card))
    per_seed = {}
    for seed in seeds:
        per_seed[seed] = {
            "bits_per_dim": bpd(2.31 + 0.011 * seed**2, k),
            "frechet_efficientnet": frechet(52.3 - seed),
            "parameters": {**frechet(1234567), "unit": "parameters", "how": {"counted": "all tensors"}},
            "psnr": psnr(24.0 + seed),
            "fid": {"unavailable": "needs the Inception weights; put pt_inception.pth at <cache> & run again"},
        }
        at = folder / f"seed-{seed}"
        at.mkdir()
        (at / "metrics.json").write_text(json.dumps(per_seed[seed]))
        (at / "events.jsonl").write_text(events(k))
        (at / "diagnostics.json").write_text(json.dumps(diagnostics(k)))
        images = torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
        write_grid(at / "samples.png", images, 17, columns=16, scale=6)
        write_grid(at / "trajectory.png", images[:24], 17, columns=6, scale=6)
        write_grid(at / "reconstructions.png", images[:32], 17, columns=16, scale=6)
    write_results(folder / "results.json", combine_seeds("digits-soft", "0f3a", environment, per_seed))
    return folder


class Page(HTMLParser):
    """Collects what the claims are about; every element must be closed by its own tag."""

    VOID = frozenset(["meta", "link", "img", "br", "hr"])

    def __init__(self, text):
        super().__init__()
        self.attributes, self.tags, self.ids, self.text, self.open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("runs") / "digits-soft")


@pytest.fixture(scope="module")
def html(folder):
    return write_report(folder).read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_requests_nothing(html, page):
    links = [
        value
        for name, value in page.attributes
        if name in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}
    ]
    assert links
    assert all(value.startswith(("data:", "#")) for value in links)
    assert not {"script", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "@import" not in html
    assert all(target.startswith("#") for target in (part.split(")")[0] for part in html.split("url(")[1:]))


def test_ids_are_unique_and_every_reference_has_its_target(page):
    assert len(page.ids) == len(set(page.ids))
    references = [value[1:] for name, value in page.attributes if name.endswith("href") and value.startswith("#")]
    assert references
    assert set(references) <= set(page.ids)


def test_a_second_write_gives_the_same_bytes(folder, html):
    assert write_report(folder).read_text() == html
    assert "\r" not in html


@pytest.mark.slow
def test_a_users_matplotlib_settings_do_not_change_the_page(folder, html):
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert write_report(folder).read_text() == html
        assert mpl.rcParams["font.size"] == 30


def test_text_of_the_spec_and_of_how_is_escaped(html):
    assert "<b>bold</b>" not in html
    assert "# &lt;b&gt;bold&lt;/b&gt;" in html
    assert "<script>" not in html
    assert "&lt;script&gt;alert(&#39;how&#39;)" in html
    assert "digits &lt;8-9&gt; &amp; $x" in html


def test_every_section_is_there(page):
    text = " ".join(page.text)
    for title in (
        "Metrics",
        "Samples",
        "Denoising trajectory",
        "Reconstructions",
        "Learning curves",
        "Gate weights over noise level",
        "Expert usage",
        "Router accuracy",
        "Expert × slice",
        "Bound by log-SNR",
        "Reconstructions over noise level",
        "Slices",
        "Data",
        "Environment",
        "Spec",
    ):
        assert title in text
    assert page.tags.count("img") == 3
    assert page.tags.count("svg") == 9


def test_the_table_shows_value_interval_seeds_and_every_key_of_how(html):
    assert "2.328" in html
    assert "2.271 to 2.385" in html
    assert "no spread" in html
    assert "95 % t-interval over 3 seeds" in html
    assert "UCI optical digits" in html
    for key in ("estimator", "log_snr_range", "per_expert", "expert 3", "reconstruction 0.011"):
        assert key in html


def test_a_caution_stands_beside_its_figure(html, folder):
    assert '<p class="why">few images</p>' in html
    assert cautions(read_results(folder / "results.json")) == ["psnr: few images"]


def test_an_unavailable_metric_shows_its_reason(html):
    assert "Not measured: needs the Inception weights; put pt_inception.pth at &lt;cache&gt; &amp; run again" in html


@pytest.mark.slow
def test_a_model_whose_numbers_bound_nothing_has_no_curve_of_them(tmp_path):
    folder = tmp_path / "run"
    make_folder(folder, seeds=(0,))
    shown = write_report(folder).read_text()
    path = folder / "seed-0/diagnostics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"no_bound": "sees its batch"}))
    spoilt = write_report(folder).read_text()
    assert "the bound on held-out images" in shown
    assert "the bound on held-out images" not in spoilt
    assert "sees its batch" in spoilt


@pytest.mark.slow
def test_images_that_are_not_finite_are_counted_below_their_picture(tmp_path):
    folder = make_folder(tmp_path / "broken", k=1, seeds=(7,))
    path = folder / "seed-7/diagnostics.json"
    facts = json.loads(path.read_text()) | {"not_finite": {"samples": 3, "reconstructions": 0}}
    path.write_text(json.dumps(facts))
    html = write_report(folder).read_text()
    assert html.count("not finite: such pixels are NaN or infinite, and black here.") == 1
    assert "Drawn from the model without selection. 3 of them not finite" in html


def test_several_seeds_say_which_one_the_pictures_show(html):
    assert "of seed 0, the first of 3" in html


def test_one_expert_and_one_seed_leave_out_the_gate(tmp_path):
    html = write_report(make_folder(tmp_path / "single", k=1, seeds=(7,))).read_text()
    page = Page(html)
    assert "A single expert (K = 1) on “digits”, one seed (7)." in html
    assert "What the gate does" not in html
    assert "first of" not in html
    assert "within one run" in html
    assert page.tags.count("svg") == 4


def test_a_slice_without_held_out_images_is_a_dash():
    bits = plots.SliceBits(matrix=[[2.0, None], [2.5, None]], merged=[2.1, None], n=[5, 0])
    svg = plots.slice_matrix("matrix", bits, ["a", "b"])
    assert svg.count(">–<") == 3
    assert "nan" not in svg


def test_more_experts_than_named_colours_are_drawn():
    weights = plots.GateWeightsByNoise(log_snr=[-1.0, 1.0], mean=[[1 / 12] * 12] * 2)
    assert "expert 11" in plots.gate_weights("gate", weights)


def test_a_long_curve_is_averaged_without_losing_its_mean():
    points = [(step, float(step % 7)) for step in range(1000)]
    steps, values = plots._binned(points)
    assert len(steps) == plots.MAX_POINTS
    assert sum(values) / len(values) == pytest.approx(sum(value for _, value in points) / 1000)


def test_a_folder_with_results_alone_is_enough(tmp_path):
    folder = make_folder(tmp_path / "bare", seeds=(0,))
    for file in (folder / "seed-0").iterdir():
        file.unlink()
    (folder / "card.json").unlink()
    page = Page(write_report(folder).read_text())
    assert "img" not in page.tags
    assert page.tags.count("svg") == 1  # the curve that stands in results.json


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot read .*results\.json: No such file .* finish the run"):
        write_report(tmp_path)


def test_a_torn_event_is_refused_with_its_line(tmp_path):
    folder = make_folder(tmp_path / "torn", k=1, seeds=(0,))
    with (folder / "seed-0" / "events.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    with pytest.raises(RunFolderError, match=r"events\.jsonl:919: not JSON"):
        write_report(folder)


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (2.31456, (2.30, 2.33), "2.315"),
        (52.3, (40.0, 64.0), "52"),
        (0.5, None, "0.5"),
        (1234567.0, None, "1,234,567"),
        (0.00012345, None, "0.0001234"),
        (3.0, (3.0, 3.0), "3"),
        (1.0, (0.0, 1e-30), "1.000000000"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_supports(value, interval, shown):
    assert format_figure(value, interval) == shown
