"""Progress without a terminal: one line per stage and one every 30 s, flushed; none with -q; no colour on request."""

import io
import time

import click
import pytest
from command_line import call

from moeframe import cli
from moeframe.progress import Lines, Silent, WarningsOnly, Watcher, _repeating, watching


class Stream(io.StringIO):
    """Counts what is flushed."""

    def __init__(self):
        super().__init__()
        self.seen = ""

    def flush(self):
        self.seen = self.getvalue()


class Clock:
    """Tells the time that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def shown():
    """Lines, the clock that they read, and the stream that they write to."""
    stream, clock = Stream(), Clock()
    return Lines(stream, clock), clock, stream


def test_a_stage_begins_with_a_line_that_is_flushed(shown):
    lines, _, stream = shown
    lines.begin("seed 0: warm start", 1210)
    assert stream.seen == "seed 0: warm start: 0 of 1,210\n"


def test_the_state_of_a_stage_has_step_rate_time_left_and_newest_figure(shown):
    lines, clock, stream = shown
    lines.begin("seed 0: joint training", 400, done=100)
    for step in range(60):
        lines.advance("3.214 bits/dim" if step == 50 else "")
    clock.now = 30.0
    lines.report()
    assert stream.seen.splitlines()[1:] == ["seed 0: joint training: 160 of 400, 2/s, 2 min 0 s left, 3.214 bits/dim"]


def test_a_stage_without_a_finished_unit_is_reported_without_a_rate(shown):
    lines, clock, stream = shown
    lines.begin("seed 0: evaluation", 5)
    clock.now = 30.0
    lines.report()
    assert stream.seen.splitlines()[1:] == ["seed 0: evaluation: 0 of 5"]


def test_a_new_stage_forgets_the_figure_of_the_one_before(shown):
    lines, _, stream = shown
    lines.begin("one", 2)
    lines.advance("1.000 bits/dim")
    lines.begin("two", 2)
    lines.report()
    assert stream.seen.splitlines()[-1] == "two: 0 of 2"


def test_nothing_is_reported_between_stages(shown):
    lines, _, stream = shown
    lines.report()
    lines.begin("one", 1)
    lines.advance()
    lines.report()
    assert stream.seen == "one: 0 of 1\n"


def test_a_long_unit_is_reported_while_it_lasts():
    calls = []
    with _repeating(lambda: calls.append(1), 0.01):
        deadline = time.monotonic() + 20
        while len(calls) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    n = len(calls)
    assert n >= 3
    time.sleep(0.05)
    assert len(calls) == n


@pytest.mark.parametrize("watcher", [Silent(), WarningsOnly(Stream()), Lines(Stream())])
def test_every_watcher_follows_the_protocol(watcher):
    assert isinstance(watcher, Watcher)


def test_without_a_terminal_each_stage_is_a_line_on_standard_error(tiny_spec, tmp_path):
    result = call("run", tiny_spec, "--out", tmp_path / "run")
    assert "seed 0: joint training: 0 of 4\n" in result.stderr
    assert "seed 0: evaluation: 0 of 3\n" in result.stderr
    assert "\x1b" not in result.output


def test_a_run_says_once_what_it_is_about_to_train(tiny_spec, tmp_path):
    short = ("--set", "training.steps=1", "--set", "seeds=[0, 1]")
    lines = call("run", tiny_spec, "--out", tmp_path / "run", *short).stderr.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["data", "files ignored", "experts"]
    assert sum(line.startswith("experts: ") for line in lines) == 1


def test_quiet_shows_no_progress(tiny_spec, tmp_path):
    result = call("run", tiny_spec, "--out", tmp_path / "run", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "report: " in result.stdout


def test_quiet_keeps_warnings_and_drops_what_is_said(capsys):
    with watching(quiet=True) as watcher:
        watcher.begin("stage", 2)
        watcher.say("data: digits")
        watcher.warn("slice 1 has 2 images")
    assert capsys.readouterr().err == "warning: slice 1 has 2 images\n"


def test_a_said_line_is_shown_without_a_terminal(capsys):
    with watching() as watcher:
        watcher.say("data: digits, 1,438 training images")
        watcher.warn("careful")
    assert capsys.readouterr().err == "data: digits, 1,438 training images\nwarning: careful\n"


def test_no_color_is_honoured(monkeypatch):
    from click.testing import CliRunner

    def marks():
        result = CliRunner().invoke(cli.main, ["plugins", "gates"], color=True)
        return click.style("gates", bold=True) in result.stdout

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert marks()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not marks()


def test_the_device_of_the_command_line_replaces_that_of_the_spec(tiny_spec, tmp_path):
    result = call("run", tiny_spec, "--out", tmp_path / "run", "--device", "cuda:77")
    assert result.exit_code == 2
    assert "error: device 'cuda:77'" in result.stderr
