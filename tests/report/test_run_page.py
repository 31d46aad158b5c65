"""report.html: what it says of a run, and that it needs nothing but itself."""

import json
from html.parser import HTMLParser

import pytest
from small_run import make_folder

from moeframe.errors import RunFolderError
from moeframe.report.numbers import format_figure
from moeframe.report.run import plots
from moeframe.report.run.page import write_report
from moeframe.report.terminal import cautions
from moeframe.storage.results import read_results


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
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert "fetch(" not in html
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
    assert html.count("<script>") == 1, "the page's own"
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
        "Gate weights by noise level",
        "Expert usage",
        "Router accuracy",
        "Expert × slice",
        "Bound by log-SNR",
        "Reconstructions by noise level",
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
    for key in ("estimator", "log-SNR range", "per expert", "expert 3", "reconstruction 0.011"):
        assert key in html


def test_a_caution_stands_beside_its_figure(html, folder):
    assert '<p class="why">few images</p>' in html
    assert cautions(read_results(folder / "results.json")) == ["PSNR: few images"]


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
    assert "the bound on validation images" in shown
    assert "the bound on validation images" not in spoilt
    assert "sees its batch" in spoilt


@pytest.mark.slow
def test_images_that_are_not_finite_are_counted_below_their_picture(tmp_path):
    folder = make_folder(tmp_path / "broken", k=1, seeds=(7,))
    path = folder / "seed-7/diagnostics.json"
    facts = json.loads(path.read_text()) | {"not_finite": {"samples": 3, "reconstructions": 0}}
    path.write_text(json.dumps(facts))
    html = write_report(folder).read_text()
    assert html.count("have NaN or infinite pixels, shown in black.") == 1
    assert "Random samples, not selected. 3 of them have NaN or infinite pixels" in html


def test_several_seeds_say_which_one_the_pictures_show(html):
    assert "show seed 0, the first of 3" in html


def test_one_expert_and_one_seed_leave_out_the_gate(tmp_path):
    html = write_report(make_folder(tmp_path / "single", k=1, seeds=(7,))).read_text()
    page = Page(html)
    assert "A single expert (K = 1) on digits, one seed (7)." in html
    assert "<h2>Gate</h2>" not in html
    assert "first of" not in html
    assert "within one run" in html
    assert page.tags.count("svg") == 4


def test_a_slice_without_test_images_is_a_dash():
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
    with pytest.raises(RunFolderError, match=r"events\.jsonl:919: invalid JSON"):
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
