"""What a user can get wrong, or a machine can break, during a run: one message with a way out, never a traceback."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import moeframe
from moeframe import cli
from moeframe.errors import RunFolderError
from moeframe.storage.run_folder import EventLog, RunFolder

CHECKPOINT = "seed-0/checkpoints/step-00000004"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")


def call(*arguments):
    """Run the command line in this process; a traceback fails the test."""
    result = CliRunner().invoke(cli.main, [str(part) for part in arguments], prog_name="moeframe")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(status, *arguments):
    """The message of a command that must fail with this exit status."""
    result = call(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.removesuffix("\n")


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_text):
    """A folder with a spec and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(tiny_text)
    assert call("run", folder / "tiny.yaml", "--out", folder / "run").exit_code == 0
    return folder


@pytest.fixture
def finished(original, tmp_path):
    """A copy of the finished run that may be spoilt."""
    return shutil.copytree(original / "run", tmp_path / "run")


@pytest.fixture
def unevaluated(finished):
    """The run as if it had been stopped after its last training step."""
    (finished / "seed-0/metrics.json").unlink()
    return finished


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
        "specs/ holds examples"
    )


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "device 'nonsense' is no device; use auto, cpu, cuda or cuda:N"),
        ("cuda:-1", "device 'cuda:-1' is no device; use auto, cpu, cuda or cuda:N"),
        ("meta", "device 'meta' is not supported; use auto, cpu, cuda or cuda:N"),
        (
            "cuda:77",
            f"device 'cuda:77' is not there: torch sees {torch.cuda.device_count()} CUDA devices; use device: auto",
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
        f"error: {finished}: training.steps: 4 there, 9 now: evaluate can change metrics, evaluation, sampler only"
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


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_named(tiny_spec, tmp_path):
    (tmp_path / "file").touch()
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "file/run")
    assert message == (
        f"error: {tmp_path}/file/run: cannot be written: Not a directory; free some space or choose another folder "
        "with --out; what was saved before is untouched, the same command resumes from it"
    )
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "file")
    assert message.startswith(f"error: {tmp_path}/file: cannot be written: File exists; ")


def test_samples_that_cannot_be_written_are_an_error(finished, tmp_path):
    (tmp_path / "file").touch()
    message = refusal(1, "sample", finished, "-n", "2", "--out", tmp_path / "file/grid.png")
    assert message.startswith(f"error: {tmp_path}/file/grid.png: cannot be written: Not a directory; ")


@pytest.mark.parametrize("writes", [0, 4, 12])
@pytest.mark.slow
def test_after_a_full_disk_the_same_command_resumes(tiny_spec, tmp_path, monkeypatch, original, writes):
    calls = []

    def fsync(descriptor, sync=os.fsync):
        calls.append(descriptor)
        if len(calls) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    out = tmp_path / "run"
    with monkeypatch.context() as full:
        full.setattr("os.fsync", fsync)
        message = refusal(1, "run", tiny_spec, "--out", out)
    assert f"{out}/" in message
    assert "cannot be written: No space left on device; free some space or choose another folder with --out" in message
    assert not list(out.rglob("*.partial"))
    assert call("run", tiny_spec, "--out", out).exit_code == 0
    assert (out / "results.json").read_bytes() == (original / "run/results.json").read_bytes()


@pytest.mark.slow
def test_a_limit_on_file_size_is_an_error_that_names_the_file(tiny_spec, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "moeframe.cli", "run", tiny_spec, "--out", tmp_path / "run"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {tmp_path}/run/seed-0/checkpoints/step-00000002: cannot be written: File too"
    )
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.partial"))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "deleted": lambda path: path.unlink(),
}
SAID = {
    "truncated": "is truncated: ",
    "emptied": "is truncated: 0 bytes of ",
    "flipped": "does not match its checksum: some bits changed",
    "deleted": "cannot be read: No such file or directory",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named(unevaluated, tiny_spec, name, damage):
    path = unevaluated / CHECKPOINT / name
    DAMAGES[damage](path)
    for command in (("run", tiny_spec, "--out", unevaluated), ("sample", unevaluated), ("evaluate", unevaluated)):
        message = refusal(1, *command)
        assert message.startswith(f"error: {path} {'' if name == 'state.json' else SAID[damage]}")
        assert message.endswith(
            "; delete the folder step-00000004 to go on from the checkpoint before it, or restart with --fresh"
        )


@pytest.mark.slow
def test_after_deleting_a_damaged_checkpoint_the_run_goes_on_from_the_one_before(unevaluated, tiny_spec, original):
    flip(unevaluated / CHECKPOINT / "model.safetensors")
    refusal(1, "run", tiny_spec, "--out", unevaluated)
    shutil.rmtree(unevaluated / CHECKPOINT)
    assert call("run", tiny_spec, "--out", unevaluated).exit_code == 0
    for name in ("model.safetensors", "ema.safetensors"):
        expected = (original / "run" / CHECKPOINT / name).read_bytes()
        assert (unevaluated / CHECKPOINT / name).read_bytes() == expected


@pytest.mark.parametrize("content", ["", "[]", "3", "null", "{}", '"step"', '{"sha256": 1}'])
def test_a_state_that_is_no_state_is_named(finished, content):
    path = finished / CHECKPOINT / "state.json"
    path.write_text(content)
    message = refusal(1, "sample", finished)
    assert message.startswith(f"error: {path} ")
    assert "is missing or not readable" in message or "it was altered" in message


def test_an_altered_state_is_found_out(finished):
    path = finished / CHECKPOINT / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "step": 3}))
    assert refusal(1, "sample", finished).startswith(f"error: {path} does not match its checksum: it was altered; ")


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(unevaluated, tiny_spec, tmp_path):
    other = tmp_path / "other"
    assert call("run", tiny_spec, "--out", other, "--set", "experts.0.channels=8").exit_code == 0
    shutil.rmtree(unevaluated / CHECKPOINT)
    shutil.copytree(other / CHECKPOINT, unevaluated / CHECKPOINT)
    for command in (("run", tiny_spec, "--out", unevaluated), ("sample", unevaluated)):
        message = refusal(1, *command)
        assert message.startswith(f"error: {unevaluated / CHECKPOINT}: the checkpoint is of another model; tensors of ")
        assert "of another shape: experts.0." in message
        assert message.endswith("; start over with --fresh, or use the spec that it was trained with")


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """A folder of four training and two test images."""
    for split, n in (("train", 4), ("test", 2)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (4, 4), 40 * i).save(tmp_path / "data" / split / f"{i}.png")
    return tmp_path / "data"


def of(pictures):
    return ("--set", f"dataset={{type: image_folder, root: {pictures}, size: 4, channels: 1}}")


@pytest.mark.parametrize(
    ("split", "content"), [("train", b""), ("train", b"no image"), ("test", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")]
)
@pytest.mark.slow
def test_a_corrupt_image_met_during_a_run_is_named_and_the_run_resumes(tiny_spec, pictures, split, content):
    path = pictures / split / "1.png"
    sound = path.read_bytes()
    path.write_bytes(content)
    command = ("run", tiny_spec, "--out", tiny_spec.parent / "run", *of(pictures))
    message = refusal(2, *command)
    assert message.startswith(f"error: image {path} ")
    assert message.endswith("replace or delete it")
    path.write_bytes(sound)
    assert call(*command).exit_code == 0


def test_a_truncated_image_met_during_a_run_is_named(tiny_spec, pictures):
    path = pictures / "train/1.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert f"error: image {path} cannot be decoded" in refusal(
        2, "run", tiny_spec, "--out", tiny_spec.parent / "run", *of(pictures)
    )


def test_a_missing_data_folder_is_named_and_the_corrected_spec_may_use_the_run_folder(tiny_spec, pictures, tmp_path):
    out = ("--out", tmp_path / "run")
    assert refusal(2, "run", tiny_spec, *out, *of(tmp_path / "none")) == (
        f"error: image_folder: root {tmp_path}/none does not exist; put the images there or set dataset.root"
    )
    assert call("run", tiny_spec, *out, *of(pictures)).exit_code == 0


def test_a_split_too_small_to_measure_is_refused(tiny_spec, tmp_path):
    assert refusal(2, "run", tiny_spec, "--out", tmp_path / "run", "--set", "dataset.n_test=1") == (
        "error: dataset 'gaussian' has 64 training and 1 test images; "
        "a run needs at least 1 and 2, because an interval needs two"
    )


def test_slices_without_images_are_refused(tiny_spec, tmp_path):
    settings = ("slicer={type: parity}", "experts.0.copies=3", "dataset={type: digits}")
    arguments = [part for setting in settings for part in ("--set", setting)]
    message = refusal(2, "run", tiny_spec, "--out", tmp_path / "run", *arguments)
    assert message.startswith(
        "error: --set slicer={type: parity}, slicer: 'parity' leaves slice 2 of 3 without training images (sizes ["
    )
    assert message.endswith("use fewer experts or another slicer")


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_names_the_part_and_keeps_a_checkpoint(tiny_spec, tmp_path):
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "run", "--set", "training.learning_rate=1e20")
    assert message.startswith("error: step ")
    assert "the part at fault: " in message
    assert "training.learning_rate" in message
    assert list((tmp_path / "run/seed-0/checkpoints").glob("step-*"))


@pytest.mark.slow
def test_a_sampler_of_one_step_runs(tiny_spec, tmp_path):
    assert call("run", tiny_spec, "--out", tmp_path / "run", "--set", "sampler.steps=1").exit_code == 0
