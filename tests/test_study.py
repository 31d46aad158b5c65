"""Studies: variants and seeds as independent runs, work shared, failures kept apart, tables that claim no more."""

import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from click.testing import CliRunner
from small_study import STUDY, changed, study_of
from torch import nn

import moeframe
from moeframe import cli
from moeframe.assembly import assemble
from moeframe.data import loading
from moeframe.data.loading import WORKERS_AT_MOST, fetch_batches
from moeframe.errors import RunFolderError
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.launcher import Ended
from moeframe.model.flops import count_flops, on_meta
from moeframe.plugin.registry import Registry
from moeframe.report.run.seed_folder import read_events
from moeframe.report.study.comparison_table import table_of
from moeframe.report.study.formats import as_markdown
from moeframe.runs import data_card
from moeframe.runs.pipeline import Borrowed, run
from moeframe.storage import checkpoint
from moeframe.storage.run_folder import RunFolder
from moeframe.storage.study_folder import StudyFolder
from moeframe.studies import worker
from moeframe.studies.cost import TRAINED
from moeframe.studies.runner import _task, gather, plan, run_study
from moeframe.studies.worker import StudyTask
from moeframe_builtin.slicers.support.by_feature import FeatureSlicer

ROOT = Path(__file__).parent.parent

# --- the whole, with real processes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_text):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(tiny_text)
    path = folder / "little.yaml"
    path.write_text(STUDY)
    arguments = ["study", str(path), "--out", str(folder / "out"), "--jobs", "2"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    return path, folder / "out", result


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
def test_the_plan_of_a_study_under_way_says_how_long_the_rest_takes(done):
    path, out, _ = done
    assert all(run.seconds is not None and run.seconds > 0 for run in plan(study_of(path), out))


@pytest.mark.slow
def test_variants_share_what_was_found_in_the_data_and_the_slices_of_a_seed(done, tmp_path):
    _, out, _ = done
    kept = sorted(place.name.split("-")[0] for place in (out / "data").iterdir())
    assert kept == ["data", "slices", "slices"]  # the data once, the slices of each seed once
    alone = tmp_path / "alone"
    run(out / "specs/sparse.yaml", overrides=["seeds=[3]"], out=alone)
    for name in ("card.json", "seed-3/slices.npz", "seed-3/slice-1.png"):
        assert (alone / name).read_bytes() == (out / "runs/sparse/3" / name).read_bytes()


@pytest.mark.slow
def test_shared_slices_are_taken_back_and_the_data_is_not_looked_through_again(tiny_text, tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(tiny_text)
    options = {"overrides": ["slicer={type: color_variance}"], "borrowed": Borrowed(data=tmp_path / "data")}
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
def test_the_learning_curve_of_phase_one_goes_with_it(done):
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
    kept = [place for place in (out / "phase_one").iterdir() if place.is_dir()]
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


@pytest.fixture
def in_this_process(monkeypatch):
    """Tasks take turns here: the same work without the start of a process for each."""

    def each_in_turn(self, tasks):
        for task in tasks:
            python, flag, module, *arguments = task.command
            assert (python, flag, module) == (sys.executable, "-m", worker.__name__)
            yield Ended(task, worker.main(arguments))

    monkeypatch.setattr("moeframe_builtin.launchers.local.LocalLauncher.run", each_in_turn)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_dies_is_recorded_with_its_cause_stops_no_other_and_is_tried_again(study_file, tmp_path):
    broken = {
        "soft": {"title": "soft gate"},
        "bad": {"set": {"gate": {"type": "posterior", "classifier": str(tmp_path / "none.pt")}}},
    }
    changed(study_file, variants=broken, seeds=[0])
    arguments = ["study", str(study_file), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1
    assert "warning: bad, seed 0: " in result.stderr
    assert "none.pt: no such file" in result.stderr
    record = json.loads((tmp_path / "out/study.json").read_text())
    assert [run["status"] for row in record["variants"] for run in row["runs"]] == ["finished", "failed"]
    table = table_of(record)
    assert table.rows[1].cells["bits_per_dim"].mean is None
    assert "none.pt" in table.rows[1].cells["bits_per_dim"].why_not
    assert "incomplete: 0 of 1" in as_markdown(table)
    broken["bad"] = {"set": {"gate": {"type": "uniform"}}}
    changed(study_file, variants=broken)
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0


@pytest.mark.slow
def test_weights_that_are_no_longer_those_of_their_variant_are_refused(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(copy / "runs/soft/0")
    with pytest.raises(RunFolderError, match=r"(cut|switch)/0: was made of weights that are no longer those of 'soft'"):
        run_study(study_of(path), copy)


def test_a_process_that_is_killed_is_a_failed_run(study_file, tmp_path, monkeypatch):
    def killed(self, tasks):
        yield from (Ended(task, -9) for task in tasks)

    monkeypatch.setattr("moeframe_builtin.launchers.local.LocalLauncher.run", killed)
    study = study_of(study_file)
    assert run_study(study, tmp_path / "out").rows[0].finished == 0
    row = json.loads((tmp_path / "out/study.json").read_text())["variants"][0]
    assert [run["status"] for run in row["runs"]] == ["failed", "failed"]
    assert row["runs"][0]["cause"].startswith("ended with status -9 and said no more; see ")


def test_the_plan_counts_what_the_gate_asks_and_the_sampler_evaluates(study_file, tmp_path):
    router = {
        "gate": {"type": "posterior"},
        "objective": [{"type": "slice_alignment"}],
        "training": {"trainable": "gate", "steps": 4, "batch_size": 4},
    }
    variants = {
        "soft": {},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1}}},
        "random": {"set": {"gate": {"type": "random"}}},
        "heun": {"set": {"sampler": {"type": "heun", "steps": 2}}},
        "router": {"set": router},
    }
    study = study_of(changed(study_file, variants=variants, seeds=[0], set={"slicer": {"type": "color_variance"}}))
    found = {run.variant: (run.training_calls, run.sampling_calls) for run in plan(study, tmp_path)}
    # four steps of batches of four images, without a warm start; two steps of sampling
    assert found == {"soft": (32, 4), "sparse": (16, 2), "random": (16, 2), "heun": (32, 6), "router": (0, 4)}


def test_the_plan_tells_large_networks_from_small_ones_by_their_operations(study_file, tmp_path):
    variants = {"soft": {}, "wide": {"set": {"experts.0.channels": 16}}, "cut": {"weights_of": "soft"}}
    study = study_of(changed(study_file, variants=variants, seeds=[0, 1], set={"slicer": {"type": "color_variance"}}))
    found = {run.variant: run for run in plan(study, tmp_path / "out")}
    expert = assemble(study.variant("soft").spec, Registry.installed(), 0).model.experts[0]
    per_call = count_flops(on_meta(expert), "expert", expert.image)
    assert found["soft"].training_flops == TRAINED * found["soft"].training_calls * per_call
    assert found["wide"].training_calls == found["soft"].training_calls
    assert found["wide"].training_flops > 2 * found["soft"].training_flops
    assert found["cut"].training_flops == 0
    assert all(run.seconds is None for run in found.values())
    place = StudyFolder(tmp_path / "out")
    for path, content in ((place.results("soft", 0), {"metrics": {}}), (place.seconds("soft", 0), {"seconds": 60.0})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    place.record.write_text(json.dumps({"name": "little"}))
    found = {run.variant: run for run in plan(study, place.path) if run.seed == 1}
    assert found["soft"].seconds == 60
    assert found["wide"].seconds > 120


def test_equal_variants_share_the_runs_that_are_there_whatever_their_order(study_file, tmp_path):
    study = study_of(changed(study_file, variants={"one": {}, "twin": {}, "third": {}}, baseline="one"))
    assert [variant.same_as for variant in study.variants] == [None, "one", "one"]
    for seed in study.seeds:
        folder = tmp_path / f"out/runs/twin/{seed}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text('{"metrics": {}}')
    found = {(run.variant, run.status) for run in plan(study, tmp_path / "out")}
    assert found == {("twin", "to measure")}  # latency
    gather(study, tmp_path / "out")
    record = json.loads((tmp_path / "out/study.json").read_text())
    assert [row["same_as"] for row in record["variants"]] == ["twin", None, "twin"]
    assert all(run["status"] == "finished" for row in record["variants"] for run in row["runs"])


def test_only_some_variants_bring_the_baseline_and_what_they_are_made_of(study_file, tmp_path):
    variants = {
        "soft": {},
        "other": {"set": {"gate": {"type": "uniform"}}},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
        "cut": {"weights_of": "sparse"},
    }
    study = study_of(changed(study_file, variants=variants))
    asked = study.only(["cut"])
    assert asked.variants == study.variants  # the table is of the whole study, whatever is carried out
    assert {run.variant for run in plan(asked, tmp_path / "out")} == {"soft", "sparse", "cut"}
    arguments = ["study", str(study_file), "--plan", "--only", "other", "--out", str(tmp_path / "out")]
    assert "sparse" not in CliRunner().invoke(cli.main, arguments).output
    result = CliRunner().invoke(cli.main, [*arguments, "--only", "spase"])
    assert result.exit_code == 2
    assert "error: 'spase' is no variant; did you mean 'sparse'?" in result.output


def test_only_some_seeds_are_carried_out_and_an_unknown_one_is_refused(study_file, tmp_path):
    changed(study_file, seeds=[0, 4, 7])
    arguments = ["study", str(study_file), "--plan", "--out", str(tmp_path / "out")]
    study = study_of(study_file)
    assert {run.seed for run in plan(study.only_seeds([7, 0]), tmp_path / "out")} == {0, 7}
    assert study.only_seeds([4]).seeds == (0, 4, 7)  # a run of one seed is the same run in the whole study
    result = CliRunner().invoke(cli.main, [*arguments, "--seed", "5"])
    assert result.exit_code == 2
    assert "error: seed 5 is not among the study's: 0, 4, 7; add it to seeds in the study file" in result.output


def test_weights_of_a_variant_that_repeats_another_are_those_of_the_other(study_file, tmp_path):
    variants = {
        "soft": {},
        "twin": {},
        "cut": {"weights_of": "twin", "set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
    }
    study = study_of(changed(study_file, variants=variants))
    assert study.source_of("twin") == study.source_of("soft") == "soft"
    task = _task(StudyFolder(tmp_path), study, study.variant("cut"), 3)
    assert StudyTask.model_validate_json(task.command[-1]).weights_of == "soft"


@pytest.mark.slow
def test_a_study_that_is_killed_leaves_no_process_behind_and_goes_on(study_file, tmp_path):
    """What it leaves is that of a study that was not killed, byte for byte."""
    variants = {
        "soft": {},
        "sparse": {"set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
        "cut": {"weights_of": "soft", "set": {"gate": {"type": "top_k", "k": 1, "width": 4}}},
    }
    settings = {"training.steps": 200, "training.warm_start": 0.3, "training.checkpoint_every": 10}
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


def test_no_more_processes_decode_than_the_environment_allows(monkeypatch):
    monkeypatch.setattr(loading, "DataLoader", None)  # none may be made
    monkeypatch.setenv(WORKERS_AT_MOST, "0")
    images = torch.zeros(4, 1, 2, 2, dtype=torch.long)
    found = list(
        fetch_batches(InMemoryExamples(images, torch.zeros(4, dtype=torch.long)), [torch.arange(2)], workers=4)
    )
    assert torch.equal(found[0].indices, torch.arange(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept", [path.parent for path in sorted(ROOT.glob("results/studies/*/runs"))], ids=lambda path: path.name
)
def test_a_committed_study_is_what_this_version_makes_of_its_runs(kept, tmp_path):
    copy = shutil.copytree(kept, tmp_path / kept.name)
    assert CliRunner().invoke(cli.main, ["report", str(copy)]).exit_code == 0
    for path in sorted(path for path in kept.rglob("*") if path.is_file()):
        assert (copy / path.relative_to(kept)).read_bytes() == path.read_bytes(), path


# --- what is in the folder already ------------------------------------------------------------------------------------


def test_the_folder_of_another_study_is_refused(study_file, tmp_path):
    study = study_of(study_file)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.json").write_text(json.dumps({"name": "other"}))
    with pytest.raises(RunFolderError, match="is the folder of the study 'other', not of 'little'; use --out"):
        run_study(study, tmp_path / "out")
    with pytest.raises(RunFolderError, match="is the folder of the study 'other', not of 'little'; use --out"):
        plan(study, tmp_path / "out")
    (tmp_path / "out/study.json").write_text(json.dumps({"name": "little", "variants": [{"name": "x"}]}))
    with pytest.raises(
        RunFolderError, match="is the folder of another study 'little', of x, none of which this one has"
    ):
        plan(study, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(RunFolderError, match=r"holds thesis\.tex but no study; choose an empty folder"):
        run_study(study, tmp_path / "full")
    with (
        StudyFolder(tmp_path / "busy").claimed(),
        pytest.raises(RunFolderError, match="another moeframe process works"),
    ):
        run_study(study, tmp_path / "busy")


@pytest.mark.slow
def test_a_variant_that_changed_after_it_was_run_is_refused(done, tmp_path):
    path, out, _ = done
    variants = yaml.safe_load(path.read_text())["variants"] | {"sparse": {"set": {"gate": {"type": "uniform"}}}}
    other = tmp_path / "little.yaml"
    other.write_text(
        yaml.safe_dump(
            {**yaml.safe_load(path.read_text()), "variants": variants, "spec": str(path.parent / "tiny.yaml")},
            sort_keys=False,
        )
    )
    with pytest.raises(RunFolderError, match="was run with other settings .* give the variant another name, or delete"):
        run_study(study_of(other), out)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_asked_for_later_is_measured_and_nothing_else_is(done, tmp_path):
    """One with other settings is measured again, one that is not asked for is not shown."""
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    before = {p: p.read_bytes() for p in copy.glob("runs/*/*/seed-*/checkpoints/**/*") if p.is_file()}
    figures = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    later = tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml")}
    content["set"]["metrics"] = [{"type": "network_calls"}, {"type": "bits_per_dim", "repeats": 2}]
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(later).only(["sparse"]).only_seeds([3])
    assert {(run.status, run.cause) for run in plan(study, copy)} == {("to measure", "network_calls, bits_per_dim")}
    table = run_study(study, copy)
    assert {column.name for column in table.columns} == {"network_calls", "bits_per_dim"}
    found = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert list(found) == ["network_calls", "bits_per_dim", "parameters"]
    assert found["parameters"] == figures["parameters"]
    assert found["bits_per_dim"]["how"] != figures["bits_per_dim"]["how"]
    assert {p: p.read_bytes() for p in copy.glob("runs/*/*/seed-*/checkpoints/**/*") if p.is_file()} == before
    assert {run.status for run in plan(study, copy)} == {"finished"}
    assert {run.status for run in plan(study_of(later), copy)} == {"finished", "to measure"}, "the other seed"
    alone = run(copy / "specs/sparse.yaml", overrides=["seeds=[3]"], out=tmp_path / "alone")
    within = json.loads((copy / "runs/sparse/3/results.json").read_text())["metrics"]["bits_per_dim"]
    assert within["mean"] == alone.metrics["bits_per_dim"].mean


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_is_measured_once_its_weights_are_there(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    weights, later = tmp_path / "network.pt", tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml"), "seeds": [3]}
    content["set"]["metrics"].append(
        {"type": "kid", "features": "torchscript", "weights": str(weights), "samples": 8, "reference": "train"}
    )
    content["variants"] = {"soft": content["variants"]["soft"]}
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(later)
    table = run_study(study, copy)
    assert "kid" not in table.rows[0].cells
    assert str(weights) in table.not_measured["kid"]
    before = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert str(weights) in before["kid"]["unavailable"]
    assert {run.status for run in plan(study, copy)} == {"finished"}, "it would be missing again"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch discourages TorchScript in some versions
        torch.jit.save(torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())), weights)
    assert {(run.status, run.cause) for run in plan(study, copy)} == {("to measure", "kid")}
    row = run_study(study, copy).rows[0]
    assert row.cells["kid"].mean is not None
    after = json.loads((copy / "runs/soft/3/results.json").read_text())["metrics"]
    assert {name: entry for name, entry in after.items() if name != "kid"} == {
        name: entry for name, entry in before.items() if name != "kid"
    }
    assert {run.status for run in plan(study, copy)} == {"finished"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_metric_that_cannot_be_measured_later_takes_no_figure_away(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    for folder in copy.glob("runs/*/*/seed-*/checkpoints"):
        shutil.rmtree(folder)  # as in a study that is kept
    later = tmp_path / "little.yaml"
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml"), "seeds": [3]}
    content["set"]["metrics"].append({"type": "network_calls"})
    content["variants"] = {"soft": content["variants"]["soft"]}
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    row = run_study(study_of(later), copy).rows[0]
    assert row.complete
    assert row.failures == [
        f"seed 3: metrics added later: {copy}/runs/soft/3: has no checkpoint of seed 3; its weights were not kept, or "
        "they lie in the folder that it was trained in"
    ]
    assert row.cells["bits_per_dim"].mean is not None
    content["set"]["metrics"].pop()
    later.write_text(yaml.safe_dump(content, sort_keys=False))
    assert run_study(study_of(later), copy).rows[0].failures == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_changed_variant_is_seen_by_the_plan_and_refused_and_others_can_be_asked_for(done, tmp_path):
    path, out, _ = done
    copy = shutil.copytree(out, tmp_path / "copy")
    content = yaml.safe_load(path.read_text()) | {"spec": str(path.parent / "tiny.yaml")}
    content["variants"]["sparse"] = {"title": "uniform now", "set": {"gate": {"type": "uniform"}}}
    content["variants"]["more"] = {"set": {"gate": {"type": "random"}}}
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    study = study_of(tmp_path / "little.yaml")
    found = {(run.variant, run.status): run.cause for run in plan(study, copy)}
    assert "gate.type: 'top_k' there, 'uniform' now" in found["sparse", "changed"]
    assert ("soft", "finished") in found
    arguments = ["study", str(tmp_path / "little.yaml"), "--out", str(copy)]
    result = CliRunner().invoke(cli.main, [*arguments, "--plan"])
    assert "sparse, seeds 0, 3: changed: gate" in result.output
    assert CliRunner().invoke(cli.main, arguments).exit_code == 2
    result = CliRunner().invoke(cli.main, [*arguments, "--only", "more", "--seed", "3"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads((copy / "study.json").read_text())["variants"]}
    assert rows["sparse"]["title"] == "sparse", "the record says what was run"
    assert [run["status"] for run in rows["more"]["runs"]] == ["to do", "finished"]


def test_a_plan_fits_eighty_columns_with_every_name_and_figure_whole(monkeypatch):
    study = study_of(ROOT / "specs/studies/digits.yaml")
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["study", str(ROOT / "specs/studies/digits.yaml"), "--plan", "--out", "none"]
    text = CliRunner().invoke(cli.main, arguments).output
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(variant.name in text for variant in study.variants)
    assert "0-5" in text
