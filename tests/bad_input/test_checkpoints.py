"""Damaged checkpoints and runs that diverge: the file or the part is named, with a way to go on."""

import json
import shutil

import pytest
from command_line import call, refusal

CHECKPOINT = "seed-0/checkpoints/step-00000004"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")


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
        assert message.startswith(
            f"error: {unevaluated / CHECKPOINT}: the checkpoint belongs to another model; tensors of "
        )
        assert "of another shape: experts.0." in message
        assert message.endswith("; start over with --fresh, or use the spec that it was trained with")


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_names_the_part_and_keeps_a_checkpoint(tiny_spec, tmp_path):
    message = refusal(1, "run", tiny_spec, "--out", tmp_path / "run", "--set", "training.learning_rate=1e20")
    assert message.startswith("error: step ")
    assert "first non-finite in: " in message
    assert "training.learning_rate" in message
    assert list((tmp_path / "run/seed-0/checkpoints").glob("step-*"))


@pytest.mark.slow
def test_a_sampler_of_one_step_runs(tiny_spec, tmp_path):
    assert call("run", tiny_spec, "--out", tmp_path / "run", "--set", "sampler.steps=1").exit_code == 0
