"""Keys of specs that were renamed still load, in spec files, overrides and run folders of older versions."""

import pytest
import yaml

from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.storage.run_folder import RunFolder


def test_an_old_key_sets_the_new_one_and_warns_with_its_place(tiny_spec):
    tiny_spec.write_text(tiny_spec.read_text().replace("validation_images: 4", "held_out_images: 7"))
    with pytest.warns(
        FutureWarning, match=r"tiny\.yaml:\d+:\d+: training\.held_out_images is now training\.validation"
    ):
        spec = load_spec(tiny_spec, Registry.installed())
    assert spec.training.validation_images == 7


def test_an_old_key_of_an_override_is_renamed_too(tiny_spec):
    with pytest.warns(FutureWarning, match=r"--set training\.held_out_every=3"):
        spec = load_spec(tiny_spec, Registry.installed(), ["training.held_out_every=3"])
    assert spec.training.validation_every == 3


def test_the_new_key_wins_over_the_old_one(tiny_spec):
    with pytest.warns(FutureWarning):
        spec = load_spec(tiny_spec, Registry.installed(), ["training.held_out_images=9"])
    assert spec.training.validation_images == 4


def test_a_run_folder_of_an_older_version_is_read_with_the_new_keys(tiny_spec, tmp_path):
    spec = load_spec(tiny_spec, Registry.installed())
    old = spec.dump()
    old["training"]["held_out_every"] = old["training"].pop("validation_every")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.spec.write_text(yaml.safe_dump(old))
    assert folder.read_spec() == spec.dump()
    folder.check_resumable(spec, fresh=False)
