import errno
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from moeframe.errors import NonFiniteError, RunFolderError, StorageError
from moeframe.storage.images import GAP, write_grid
from moeframe.storage.results import UnavailableResult, combine_seeds, read_results, write_results


def measured(value, **changes):
    return {"value": value, "unit": "bits/dim", "better": "lower", "n": 100, "how": {"estimator": "bound"}} | changes


def combine(*values):
    return combine_seeds("run", "abc", {"torch": "2"}, {seed: {"bpd": value} for seed, value in enumerate(values)})


def test_results_json_has_the_keys_of_the_schema(tmp_path):
    write_results(tmp_path / "results.json", combine(measured(2.0, parts={"prior": 0.5}), measured(3.0)))
    content = json.loads((tmp_path / "results.json").read_text())
    assert set(content) == {"schema_version", "name", "spec_hash", "environment", "seeds", "metrics"}
    assert content["schema_version"] == 1
    assert content["seeds"] == [0, 1]
    keys = [
        "unit",
        "better",
        "role",
        "mean",
        "sd",
        "interval",
        "interval_method",
        "n_seeds",
        "per_seed",
        "n",
        "how",
        "parts",
    ]
    assert list(content["metrics"]["bpd"]) == keys
    assert content["metrics"]["bpd"]["parts"] == {"prior": {"mean": 0.5, "per_seed": [0.5, None]}}


def test_reading_returns_what_was_written(tmp_path):
    results = combine(measured(2.0, parts={"prior": 0.5}), measured(3.0))
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_several_seeds_get_a_t_interval():
    result = combine(measured(1.0), measured(2.0), measured(3.0)).metrics["bpd"]
    assert (result.mean, result.sd, result.n_seeds, result.per_seed) == (2.0, 1.0, 3, [1.0, 2.0, 3.0])
    assert result.interval == pytest.approx((-0.48414, 4.48414), abs=1e-4)
    assert result.interval_method == "95 % t-interval over 3 seeds"


def test_intervals_within_runs_are_not_used_for_several_seeds():
    result = combine(measured(1.0, interval=[0.9, 1.1]), measured(3.0, interval=[2.9, 3.1])).metrics["bpd"]
    assert result.interval[0] < 0.9
    assert "within" not in result.interval_method


def test_one_seed_keeps_its_own_interval_and_says_what_it_is():
    how = {"interval_method": "normal, from the standard error over images"}
    result = combine(measured(2.0, interval=[1.9, 2.1], how=how)).metrics["bpd"]
    assert result.interval == (1.9, 2.1)
    assert result.interval_method == "normal, from the standard error over images within one run"
    assert result.sd is None


def test_one_seed_without_interval_gets_none():
    result = combine(measured(2.0)).metrics["bpd"]
    assert (result.interval, result.interval_method) == (None, "none: one seed")


def test_a_metric_that_no_seed_could_measure_says_why_once():
    why = {"unavailable": "needs lpips; install moeframe[quality]"}
    assert combine(why, why).metrics["bpd"] == UnavailableResult(unavailable="needs lpips; install moeframe[quality]")


def test_a_seed_that_could_not_measure_is_null_and_not_counted():
    result = combine(measured(2.0), {"unavailable": "out of memory"}).metrics["bpd"]
    assert (result.n_seeds, result.per_seed, result.interval) == (1, [2.0, None], None)
    assert result.how["unavailable"] == {"seed 1": "out of memory"}


def test_a_metric_that_one_seed_lacks_is_present():
    results = combine_seeds("run", "abc", {}, {0: {"bpd": measured(2.0)}, 1: {}})
    assert results.metrics["bpd"].per_seed == [2.0, None]


def test_how_shows_both_values_where_seeds_differ():
    result = combine(measured(1.0, how={"n": 1, "device": "cpu"}), measured(1.0, how={"n": 2, "device": "cpu"}))
    assert result.metrics["bpd"].how == {"n": {"seed 0": 1, "seed 1": 2}, "device": "cpu"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["value", "how", "parts"])
def test_a_number_that_is_not_finite_is_refused_by_name(bad, place):
    entry = measured(bad) if place == "value" else measured(1.0, **{place: {"deep": bad}})
    with pytest.raises(NonFiniteError, match=rf"metric bpd, seed 0: {place}.* is (nan|inf): not a finite number"):
        combine(entry)


def test_nan_in_the_environment_is_never_written(tmp_path):
    results = combine_seeds("run", "abc", {"load": float("nan")}, {0: {}})
    with pytest.raises(NonFiniteError, match=r"results\.json: environment: load is nan"):
        write_results(tmp_path / "results.json", results)
    assert list(tmp_path.iterdir()) == []


def test_seeds_in_different_units_are_refused():
    with pytest.raises(RunFolderError, match="seeds differ in unit or direction"):
        combine(measured(1.0), measured(1.0, unit="nats"))


def test_what_is_no_measurement_is_named():
    with pytest.raises(RunFolderError, match=r"metrics.json of seed 0: bpd\.n: Field required"):
        combine({key: value for key, value in measured(1.0).items() if key != "n"})


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(path, combine(measured(1.0)))
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=r"results\.json: cannot be written: No space left on device; free some space"
    ):
        write_results(path, combine(measured(2.0)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ('{"schema_version": 2}', "schema_version: Input should be 1: not a results.json")],
)
def test_a_foreign_results_file_is_refused(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        read_results(tmp_path / "results.json")


def test_a_grid_keeps_every_level_and_place(tmp_path):
    images = torch.arange(3 * 2 * 2).reshape(3, 1, 2, 2)
    write_grid(tmp_path / "grid.png", images, n_levels=16, columns=2, scale=3)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (2 * 6 + 3 * GAP, 2 * 6 + 3 * GAP)
    for i in range(3):
        y, x = GAP + i // 2 * (6 + GAP), GAP + i % 2 * (6 + GAP)
        shown = pixels[y : y + 6 : 3, x : x + 6 : 3]
        assert np.array_equal(shown, images[i, 0].numpy() * 17)


def test_a_colour_grid_keeps_its_channels(tmp_path):
    images = torch.tensor([10, 20, 30]).reshape(1, 3, 1, 1)
    write_grid(tmp_path / "grid.png", images, n_levels=256, columns=4, scale=1)
    assert np.asarray(Image.open(tmp_path / "grid.png"))[GAP, GAP].tolist() == [10, 20, 30]


def test_a_grid_is_the_same_bytes_twice(tmp_path):
    images = torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    for name in ("a.png", "b.png"):
        write_grid(tmp_path / name, images, n_levels=256, columns=3, scale=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_channels_that_are_not_colours_are_drawn_side_by_side(tmp_path):
    from PIL import Image

    images = torch.zeros(1, 2, 4, 4, dtype=torch.long)
    images[:, 1] = 1
    write_grid(tmp_path / "grid.png", images, n_levels=2, columns=1, scale=1)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.mode == "L"
        assert [picture.getpixel((x, 3)) for x in range(2, 10)] == [0] * 4 + [255] * 4
