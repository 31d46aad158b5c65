"""Wrong specs, arguments and run folders: one message with a way out, never a traceback."""

import pytest
import torch
from command_line import call, contents, refusal

import moeframe
from moeframe.errors import RunFolderError
from moeframe.storage.run_folder import EventLog, RunFolder

# --- spec and arguments -----------------------------------------------------------------------------------------------


def test_an_unknown_component_is_refused(tiny_spec, tmp_path):
    message = refusal(2, "run", tiny_spec, "--set", "gate.type=sofmax", "--out", tmp_path / "run")
    assert message == (
        "error: --set gate.type=sofmax: gate.type: unknown gate 'sofmax'; did you mean 'softmax'?; "
        "installed: fixed, posterior, random, softmax, switch, top_k, uniform"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["run", "validate", "doctor"])
def test_a_missing_spec_is_refused(command, tmp_path):
    assert refusal(2, command, tmp_path / "no.yaml") == f"error: {tmp_path}/no.yaml: no such spec file; " + (
        "`moeframe init` lists examples"
    )


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "unknown device 'nonsense'; use auto, cpu, cuda or cuda:N"),
        ("cuda:-1", "unknown device 'cuda:-1'; use auto, cpu, cuda or cuda:N"),
        ("meta", "device 'meta' is not supported; use auto, cpu, cuda or cuda:N"),
        (
            "cuda:77",
            f"device 'cuda:77' is not available (torch.cuda.device_count() == {torch.cuda.device_count()}); "
            "use device: auto",
        ),
    ],
)
def test_a_device_that_is_not_there_is_refused(tiny_spec, finished, device, message):
    assert refusal(2, "run", tiny_spec, "--out", tiny_spec.parent / "new", "--set", f"device={device}") == (
        f"error: {message}"
    )
    assert refusal(2, "sample", finished, "--device", device) == f"error: {message}"


@pytest.mark.slow
def test_a_run_whose_device_was_refused_goes_on_with_another(tiny_spec):
    out = tiny_spec.parent / "run"
    refusal(2, "run", tiny_spec, "--out", out, "--set", "device=cuda:77")
    assert call("run", tiny_spec, "--out", out).exit_code == 0


# --- the run folder ---------------------------------------------------------------------------------------------------


def test_a_folder_of_another_spec_is_refused_naming_the_keys(finished, tiny_spec):
    before = contents(finished)
    message = refusal(
        2, "run", tiny_spec, "--out", finished, "--set", "training.steps=6", "--set", "gate={type: top_k, k: 1}"
    )
    assert message.startswith(f"error: {finished}: belongs to another spec (")
    assert "training.steps: 4 there, 6 now" in message
    assert "gate.type: 'softmax' there, 'top_k' now" in message
    assert message.endswith("choose another folder with --out, or --fresh to delete what is there and start over")
    assert "moeframe evaluate" not in message
    assert contents(finished) == before


def test_a_change_of_metrics_alone_points_to_evaluate(finished, tiny_spec):
    message = refusal(2, "run", tiny_spec, "--out", finished, "--set", "sampler.steps=3")
    assert "sampler.steps: 2 there, 3 now" in message
    assert "measure the trained model again with `moeframe evaluate`" in message


def test_a_strangers_folder_is_refused_and_left_as_it_was(tiny_spec, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"me")
    for more in ([], ["--fresh"]):
        message = refusal(2, "run", tiny_spec, "--out", photos, *more)
        assert message == f"error: {photos}: holds holiday.jpg but no run; choose an empty folder with --out"
    assert [path.name for path in photos.iterdir()] == ["holiday.jpg"]


@pytest.mark.slow
def test_fresh_deletes_only_what_the_run_wrote(finished, tiny_spec):
    (finished / "notes.txt").write_text("mine")
    (finished / "seed-words").mkdir()
    (finished / "seed-words/poem.txt").write_text("mine too")
    assert call("run", tiny_spec, "--out", finished, "--set", "training.steps=2", "--fresh").exit_code == 0
    assert (finished / "notes.txt").read_text() == "mine"
    assert (finished / "seed-words/poem.txt").read_text() == "mine too"
    assert sorted(path.name for path in (finished / "seed-0/checkpoints").iterdir()) == ["step-00000002"]


def test_two_processes_do_not_work_in_one_folder(finished, tiny_spec):
    with RunFolder(finished).claimed():
        for command in (("run", tiny_spec, "--out", finished), ("evaluate", finished)):
            assert refusal(2, *command) == (
                f"error: {finished}: another moeframe process works in this folder; wait for it or choose --out"
            )
    assert call("run", tiny_spec, "--out", finished).exit_code == 0


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_refused(tmp_path, command, place):
    assert refusal(2, command, tmp_path / place) == (
        f"error: {tmp_path / place}: not a run folder (spec.yaml not found); name a folder that `moeframe run` wrote"
    )


def test_loading_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="not a run folder"):
        moeframe.load(tmp_path)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[", b"- a\n"])
def test_a_damaged_spec_in_the_folder_is_named(finished, tiny_spec, damage):
    (finished / "spec.yaml").write_bytes(damage)
    for command in (("run", tiny_spec, "--out", finished), ("sample", finished), ("evaluate", finished)):
        assert refusal(2, *command) == f"error: {finished}/spec.yaml: is damaged; run again with --fresh"


@pytest.mark.slow
def test_fresh_clears_a_folder_whose_spec_is_damaged(finished, tiny_spec):
    (finished / "spec.yaml").write_bytes(b"[")
    assert call("run", tiny_spec, "--out", finished, "--fresh").exit_code == 0


@pytest.mark.parametrize("damage", [b'{"network_calls": ', b"[]", b'{"network_calls": 3}', b"\xff"])
def test_damaged_metrics_are_named(finished, tiny_spec, damage):
    metrics = finished / "seed-0/metrics.json"
    metrics.write_bytes(damage)
    message = refusal(2, "run", tiny_spec, "--out", finished)
    assert message.startswith(f"error: {metrics} ")
    assert message.endswith("delete it and run again")


@pytest.mark.slow
def test_deleted_metrics_are_measured_again(unevaluated, tiny_spec, original):
    assert call("run", tiny_spec, "--out", unevaluated).exit_code == 0
    assert (unevaluated / "results.json").read_bytes() == (original / "run/results.json").read_bytes()


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"3\n", b'{"kind": "train"}\n', b'{"kind": "train", "st'])
def test_damaged_events_cost_only_the_lines_from_there_on(finished, damage):
    events = finished / "seed-0/events.jsonl"
    sound = events.read_bytes()
    events.write_bytes(sound + damage)
    EventLog(events, step=4)
    assert events.read_bytes() == sound


def test_evaluate_refuses_to_change_what_was_trained(finished):
    before = contents(finished)
    assert refusal(2, "evaluate", finished, "--set", "training.steps=9") == (
        f"error: {finished}: training.steps: 4 there, 9 now: evaluate can only change metrics, evaluation, sampler"
    )
    assert contents(finished) == before


def test_a_seed_that_was_not_trained_is_refused(finished):
    assert refusal(2, "sample", finished, "--run-seed", "5") == (
        f"error: {finished}: has no checkpoint of seed 5; its seeds are 0"
    )


def test_samples_go_into_png_npz_or_a_new_folder_only(finished, tmp_path):
    path = tmp_path / "grid.txt"
    assert refusal(2, "sample", finished, "-n", "2", "--out", path) == (
        f"error: {path}: ends in '.txt'; name a .png or an .npz file, or a folder"
    )
    assert not path.exists()
    assert refusal(2, "sample", finished, "-n", "2", "--out", tmp_path.parent) == (
        f"error: {tmp_path.parent}: already exists and is not an empty folder; name a new folder for the images"
    )


def test_a_network_beyond_memory_is_refused_by_name(tiny_spec, tmp_path):
    arguments = ("run", tiny_spec, "--out", tmp_path / "run", "--set", "experts.0.channels=10000000")
    assert refusal(2, *arguments) == ("error: expert 0: its weights do not fit into memory; choose a smaller network")


def test_a_finished_run_keeps_the_environment_that_measured_it(finished, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr("moeframe.runs.environment.describe_environment", lambda device: {"device_name": "another"})
    assert call("run", finished / "spec.yaml", "--out", finished, "--set", "training.workers=1").exit_code == 0
    assert contents(finished) == before
