"""Studies: variants and seeds as runs of their own processes, with shared work done once."""

import json
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from click.testing import CliRunner
from small_study import changed, study_of

import moeframe
from moeframe import cli
from moeframe.report.run.seed_folder import read_events
from moeframe.runs import data_card
from moeframe.runs.pipeline import run
from moeframe.runs.shared_work import SharedWork
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.storage.study_folder import StudyFolder
from moeframe.studies.plan import plan
from moeframe.studies.record import gather
from moeframe.studies.runner import _task, run_study
from moeframe_builtin.slicers.support.by_feature import FeatureSlicer


@pytest.mark.slow
def test_a_study_runs_every_variant_once_with_every_seed(done):
    path, out, result = done
    study = study_of(path)
    record = json.loads((out / "study.json").read_text())
    assert [(row["name"], row["same_as"]) for row in record["variants"]] == [
        ("soft", None),
        ("sparse", None),
        ("cut", None),
        ("again", "soft"),
        ("switch", None),
    ]
    assert all(run["status"] == "finished" for row in record["variants"] for run in row["runs"])
    assert not (out / "runs/again").exists(), "equal specs are run once"
    assert [run.status for run in plan(study, out)] == ["finished"] * 8
    assert "Best bits/dim: " in result.output.replace("\n", " ")
    assert "Fewer than 6 seeds: no significance is claimed" in result.output


@pytest.mark.slow
def test_a_variant_is_merged_from_the_runs_of_others_seed_by_seed(done):
    path, out, _ = done
    for seed in (0, 3):
        spec = yaml.safe_load((out / f"runs/switch/{seed}/spec.yaml").read_text())
        assert [expert["path"] for expert in spec["experts"]] == [
            str(out / f"runs/{v}/{seed}") for v in ("soft", "sparse")
        ]
        card = json.loads((out / f"runs/switch/{seed}/card.json").read_text())
        assert len({expert["weights_sha256"] for expert in card["experts"]}) == 2
    assert study_of(path).depth(study_of(path).variant("switch")) == 1


@pytest.mark.slow
def test_times_are_measured_alone_and_stand_in_the_table(done):
    path, out, _ = done
    assert "latency" not in json.loads((out / "runs/soft/0/results.json").read_text())["metrics"]
    alone = json.loads((out / "runs/soft/0.alone.json").read_text())
    assert alone["metrics"]["latency"]["unit"] == "ms/image"
    table = json.loads((out / "tables/study.json").read_text())
    assert [column["name"] for column in table["columns"]] == [
        *("bits_per_dim", "parameters", "parameters, active"),
        "latency",
    ]
    assert all(row["cells"]["latency"]["n_seeds"] == 2 for row in table["rows"])
    before = (out / "runs/soft/0.alone.json").read_bytes()
    run_study(study_of(path), out)
    assert (out / "runs/soft/0.alone.json").read_bytes() == before, "measured once"


@pytest.mark.slow
def test_variants_share_what_was_found_in_the_data_and_the_slices_of_a_seed(done, tmp_path):
    _, out, _ = done
    kept = sorted(place.name.split("-")[0] for place in (out / "shared").iterdir() if "warm" not in place.name)
    assert kept == ["data", "slices", "slices"]  # the data once, the slices of each seed once
    alone = tmp_path / "alone"
    run(out / "specs/sparse.yaml", overrides=["seeds=[3]"], out=alone)
    for name in ("card.json", "seed-3/slices.npz", "seed-3/slice-1.png"):
        assert (alone / name).read_bytes() == (out / "runs/sparse/3" / name).read_bytes()


@pytest.mark.slow
def test_shared_slices_are_taken_back_and_the_data_is_not_looked_through_again(tiny_text, tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(tiny_text)
    options = {"overrides": ["slicer={type: color_variance}"], "shared": SharedWork(tmp_path / "shared")}
    run(tmp_path / "tiny.yaml", out=tmp_path / "first", **options)
    monkeypatch.setattr(data_card, "find_duplicates", None)
    monkeypatch.setattr(FeatureSlicer, "fit", None)
    run(tmp_path / "tiny.yaml", out=tmp_path / "second", **options)
    for name in ("card.json", "seed-0/slices.npz", "seed-0/metrics.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    options["overrides"] = ["slicer={type: color_variance, balance: natural}"]
    with pytest.raises(TypeError):  # other slices are not taken for these
        run(tmp_path / "tiny.yaml", out=tmp_path / "third", **options)


@pytest.mark.slow
def test_the_learning_curve_of_a_shared_warm_start_goes_with_it(done):
    _, out, _ = done
    kept = [read_events(out / f"runs/{variant}/0/seed-0/events.jsonl") for variant in ("soft", "sparse")]
    trained = [[event for event in events if event.kind == "train" and event.phase == "warm_start"] for events in kept]
    assert trained[0] == trained[1] != []
    assert all(any(event.bits_per_dim is not None for event in events) for events in kept)


@pytest.mark.slow
def test_each_run_of_a_study_is_what_the_run_command_gives(done, tmp_path):
    path, out, _ = done
    spec = out / "specs/sparse.yaml"
    alone = moeframe.run(spec, overrides=["seeds=[3]"], out=tmp_path / "alone")
    within = json.loads((out / "runs/sparse/3/results.json").read_text())["metrics"]["bits_per_dim"]
    assert within["mean"] == alone.metrics["bits_per_dim"].mean
    last = [
        checkpoint.load(checkpoint.latest(RunFolder(place).checkpoints(3)))
        for place in (tmp_path / "alone", out / "runs/sparse/3")
    ]
    for group in ("model", "ema", "optimizer"):
        one, other = (each.tensors[group] for each in last)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items()), group
    assert study_of(path).name == "little"


@pytest.mark.slow
def test_variants_whose_experts_begin_alike_share_one_warm_start_per_seed(done):
    _, out, _ = done
    kept = [place for place in (out / "shared").iterdir() if place.name.startswith("warm-start-")]
    assert len(kept) == 2, "one for each seed, not for each variant"
    for seed in (0, 3):
        phases = []
        for variant in ("soft", "sparse"):
            lines = (out / f"runs/{variant}/{seed}/seed-{seed}/events.jsonl").read_text().splitlines()
            phases.append({json.loads(line)["phase"] for line in lines})
        assert phases == [{"warm_start", "joint"}] * 2


@pytest.mark.slow
def test_a_gate_cut_afterwards_has_the_weights_of_the_one_trained_dense(done):
    _, out, _ = done
    soft, cut = (moeframe.load(out / f"runs/{name}/0") for name in ("soft", "cut"))
    own = dict(soft.denoiser.named_parameters())
    assert all(torch.equal(tensor, own[name]) for name, tensor in cut.denoiser.named_parameters())
    z, log_snr = torch.randn(4, 1, 4, 4), torch.zeros(4)
    assert int((cut.denoiser(z, log_snr).routing.weights > 0).sum()) == 4
    assert int((soft.denoiser(z, log_snr).routing.weights > 0).sum()) == 8


@pytest.mark.slow
def test_the_tables_come_again_byte_for_byte_and_a_finished_study_computes_nothing(done):
    path, out, _ = done
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    run_study(study_of(path), out)
    gather(study_of(path), out)
    (out / "study.html").write_text("")
    assert CliRunner().invoke(cli.main, ["report", str(out)]).exit_code == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"} == before
    assert {p.name for p in (out / "tables").iterdir()} == {
        f"{name}.{ending}" for name in ("study", "noise_levels", "slices") for ending in ("csv", "json", "md", "tex")
    }


@pytest.mark.slow
def test_a_study_that_is_killed_leaves_no_process_behind_and_goes_on(study_file, tmp_path):
    """What it leaves is that of a study that was not killed, byte for byte."""
    variants = {
        "soft": {},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
        "cut": {"weights_of": "soft", "set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
    }
    settings = {"training.steps": 120, "training.warm_start": 0.3, "training.checkpoint_every": 10}
    settings["slicer"] = {"type": "color_variance"}
    metrics = {"metrics": [{"type": "bits_per_dim", "repeats": 1}, {"type": "parameters"}]}
    changed(study_file, variants=variants, seeds=[0], set={**settings, **metrics})
    whole = ["study", str(study_file), "--out", str(tmp_path / "whole"), "--jobs", "2"]
    assert CliRunner().invoke(cli.main, whole).exit_code == 0
    arguments = ["study", str(study_file), "--out", str(tmp_path / "out"), "--jobs", "2"]
    command = [sys.executable, "-m", "moeframe.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = []
    begun = [tmp_path / f"out/runs/{name}/0/seed-0/checkpoints" for name in ("soft", "sparse")]
    while len(children) < 2 or not any(place.exists() and any(place.iterdir()) for place in begun):
        assert process.poll() is None, "it ended by itself"
        children = psutil.Process(process.pid).children()
        time.sleep(0.1)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert {run.status for run in plan(study_of(study_file), tmp_path / "out")} == {"to do"}
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0
    names = ["study.json", "tables/study.csv", *(f"runs/{name}/0/results.json" for name in variants)]
    for name in [*names, *(f"runs/{name}/0/seed-0/events.jsonl" for name in variants)]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_times_and_memory_are_exclusive_tasks(study_file, tmp_path):
    study = study_of(study_file)
    whats = ("train", "measure", "measure alone")
    tasks = [_task(StudyFolder(tmp_path), study, study.variants[0], 0, what) for what in whats]
    assert [task.exclusive for task in tasks] == [False, False, True]
