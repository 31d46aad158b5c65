"""The verdicts of a study follow from roles, costs, pairs and gates; no rule knows a variant's or a metric's name."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from small_study import spoiled, write_study_folder

from moeframe.report.study.comparison_table import table_of
from moeframe.report.study.page import write_study
from moeframe.report.study.sentences import in_short
from moeframe.report.study.styles import LABELLED, VariantStyles
from moeframe.report.study.verdicts import findings

ROOT = Path(__file__).parents[2]
NOISE = (0.0, 0.011, -0.009, 0.004, -0.012, 0.006)
"""Of the seeds: the same for all variants, so that pairs see through it."""


def variant(name, bits, *, experts=1, flops=8.0, parameters=100.0, quality=20.0, **facts):
    """One row of study.json; `flops` are those of training."""
    wobble = (len(name) % 5 + 1) * 1e-4
    runs = []
    for seed, level in enumerate(NOISE):
        own = {"m1": ("nats", "lower", "likelihood", bits + level + wobble * (-1) ** seed)}
        own["m2"] = ("distance", "lower", "quality", quality + 10 * level + wobble * (-1) ** seed)
        own["m3"] = ("parameters", "lower", "cost", parameters)
        metrics = {
            key: {"unit": unit, "better": better, "role": role, "mean": value}
            for key, (unit, better, role, value) in own.items()
        }
        per_call = {"per_step_dense": {"mean": flops * experts}}
        metrics["flops"] = {"unit": "FLOPs", "better": "lower", "role": "cost", "mean": flops, "parts": per_call}
        runs.append({"seed": seed, "status": "finished", "cause": "", "metrics": metrics})
    row = {"name": name, "title": f"title of {name}", "training_calls": 1, "n_experts": experts, "runs": runs}
    return row | {"same_as": None, "weights_of": None, "runs_of": []} | facts


def study(*rows, baseline="base", compare=(), seeds=6):
    rows = [{**row, "runs": row["runs"][:seeds]} for row in rows]
    facts = {"name": "made up", "dataset": "none", "baseline": baseline, "seeds": list(range(seeds))}
    return table_of({**facts, "compare": [list(pair) for pair in compare], "variants": rows})


BASE = variant("base", 2.0)
MIX = variant("mix", 1.98, experts=4, flops=32.0, parameters=400.0)
LONG = variant("long", 1.93, flops=32.0)
BIG = variant("big", 1.94, flops=32.0, parameters=405.0)


def claims(table):
    return [finding.claim for finding in findings(table)]


def test_one_network_of_equal_compute_beats_every_mixture():
    table = study(BASE, MIX, variant("other", 1.99, experts=4, flops=64.0), LONG, compare=[("mix", "long")])
    said = findings(table)
    assert said[0].claim == "Best m1: title of long"
    assert said[1].claim == "One expert beats every mixture, the best of them at equal training compute"
    assert said[1].numbers[0].startswith("m1 -0.05")
    assert said[2].claim == "Four experts do not beat one network of equal training compute"
    assert said[2].numbers[0].startswith("m1 +0.05")
    assert (said[2].variants, said[2].tone) == (("mix", "long"), "worse")
    assert re.search(r"\+0\.05\d* \(0\.0\d+ to 0\.0\d+\)", said[2].numbers[0])


def test_the_control_of_equal_parameters_has_its_own_verdict():
    said = claims(study(BASE, MIX, LONG, BIG))
    assert "Four experts do not beat one network of equal training compute" in said
    assert "Four experts do not beat one network of equal parameters" in said
    assert not [claim for claim in claims(study(BASE, MIX, LONG)) if "parameters" in claim], "none is as large"


def test_a_mixture_that_wins_is_said_to_win():
    won = variant("mix", 1.9, experts=4, flops=32.0, parameters=400.0)
    said = claims(study(BASE, won, LONG))
    assert said[0] == "Best m1: title of mix"
    assert said[1] == "A mixture beats every single expert, the best of them at equal training compute"
    assert "Four experts beat one network of equal training compute" in said
    assert "Four experts beat the single-expert baseline at 4 times the training compute" in said


def test_a_difference_within_the_noise_is_no_win():
    rows = [variant(name, 2.0, experts=k) for name, k in (("base", 1), ("mix", 4))]
    for seed, run in enumerate(rows[1]["runs"]):
        run["metrics"]["m1"]["mean"] += 0.05 * (-1) ** seed
    said = claims(study(*rows))
    assert any("leads, but does not clearly beat" in claim for claim in said)
    assert any("show no clear difference from the single-expert baseline" in claim for claim in said)


def test_a_plain_average_is_compared_with_the_learned_gate_it_is_paired_with():
    mean = variant("mean", 1.975, experts=4, flops=32.0, averages=True)
    rival = variant("rival", 1.9, experts=4, flops=32.0)
    [said] = [f for f in findings(study(BASE, MIX, mean, rival, compare=[("mean", "mix")])) if "average" in f.claim]
    assert said.claim == "A plain average of four experts beats the learned gate"
    assert said.variants == ("mean", "mix")
    [said] = [f for f in findings(study(BASE, MIX, mean, rival)) if "average" in f.claim]
    assert said.claim == "A plain average of four experts does not beat the learned gate"
    assert said.variants == ("mean", "rival"), "the best gate of as many experts"


def test_reused_weights_are_compared_with_their_source():
    cut = variant("cut", 2.2, experts=4, flops=32.0, weights_of="mix")
    [said] = [f for f in findings(study(BASE, MIX, cut)) if f.variants[0] == "cut"]
    assert (said.claim, said.variants) == ("Changing the settings of trained weights hurts", ("cut", "mix"))


def test_names_decide_nothing():
    rows = [BASE, MIX, LONG, BIG, variant("mean", 1.975, experts=4, flops=32.0, averages=True)]
    renamed = [
        {**json.loads(json.dumps(row)), "name": f"x{k}", "title": f"title of {row['name']}"}
        for k, row in enumerate(rows)
    ]
    assert claims(study(*rows)) == claims(study(*renamed, baseline="x0"))


def test_quality_that_says_the_opposite_limits_the_claim():
    blurred = variant("long", 1.93, flops=32.0, quality=40.0)
    said = claims(study(BASE, MIX, blurred))
    better = "One expert beats every mixture in m1, but the opposite holds for m2"
    assert f"{better}, the best of them at equal training compute" in said


def test_few_seeds_still_get_verdicts_by_their_intervals():
    table = study(BASE, MIX, LONG, seeds=5)
    assert "Four experts do not beat one network of equal training compute" in claims(table)
    assert all(row.cells["m1"].against.verdict == "underpowered" for row in table.rows if row.name != "base")


def test_a_study_without_a_ranking_metric_has_no_verdict():
    rows = [variant("base", 2.0), variant("mix", 1.9, experts=2)]
    for row in rows:
        for run in row["runs"]:
            run["metrics"] = {"flops": run["metrics"]["flops"]}
    assert in_short(study(*rows)) == []


@pytest.mark.slow
def test_a_metric_of_a_third_party_leads_by_its_role(tmp_path):
    """In the verdicts, in the scatter and in the forest plot."""
    folder = write_study_folder(tmp_path / "study", failed=None)
    for path in folder.glob("runs/*/*/results.json"):
        data = json.loads(path.read_text())
        found = {"elegance_of_strokes": ("frechet", "quality"), "surprise": ("bits_per_dim", "likelihood")}
        for name, (source, role) in found.items():
            data["metrics"][name] = {**data["metrics"].pop(source), "unit": "strokes", "role": role}
        path.write_text(json.dumps(data))
    table = write_study(folder)
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert in_short(table)[0].startswith("Best surprise: ")
    assert "elegance of strokes" in in_short(table)[1]
    assert 'aria-label="elegance of strokes against surprise"' in page
    assert 'data-forest="surprise"' in page
    assert "elegance_of_strokes" not in re.sub(r'(?:id|data-\w+)="[^"]*"', "", page)


@pytest.mark.slow
def test_a_metric_without_a_role_is_not_taken_for_quality(tmp_path):
    folder = spoiled(tmp_path, "study.json", lambda data: None)
    for path in folder.glob("runs/*/*/results.json"):
        data = json.loads(path.read_text())
        data["metrics"]["frechet"]["role"] = "other"
        path.write_text(json.dumps(data))
    write_study(folder)
    assert "Fréchet distance against bits/dim" not in (folder / "study.html").read_text(encoding="utf-8")


def test_at_most_eight_variants_are_labelled_and_the_verdicts_choose_them():
    many = [variant(f"v{k}", 2.0 + k / 100, experts=4) for k in range(12)]
    table = study(BASE, MIX, LONG, *many, compare=[("mix", "long")])
    styles = VariantStyles.of(table, findings(table))
    assert {"base", "mix", "long"} <= set(styles.labelled)
    assert len(styles.labelled) <= LABELLED
    assert styles.style("v7").colour != styles.style("mix").colour
    assert not styles.style("v7").labelled
    looks = {styles.style(name).colour for name in ("base", "mix", "long")}
    assert len(looks) == 3, "baseline, mixture and control"
    assert len({styles.style(name).marker for name in ("base", "mix", "long")}) == 3


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        ({"experts": 1}, "control"),
        ({"experts": 4}, "mixture"),
        ({"experts": 4, "weights_of": "mix"}, "ablation"),
        ({"experts": 4, "group": "ablation"}, "ablation"),
        ({"experts": 1, "group": "mixture"}, "mixture"),
    ],
)
def test_the_group_of_a_variant_is_its_study_files_or_follows_from_its_experts(facts, group):
    table = study(BASE, MIX, variant("one", 2.0, **facts))
    assert table.row("one").group == group


@pytest.mark.slow
def test_at_most_900_words_are_unfolded_on_a_page_of_nineteen_variants(tmp_path, monkeypatch):
    """As in the study of digits: 19 variants, of which most titles have six words, and ten metrics."""
    spec = importlib.util.spec_from_file_location("page_words", ROOT / "benchmarks/page_words.py")
    words = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(words)
    folder = write_study_folder(tmp_path / "study", failed=None)
    record = json.loads((folder / "study.json").read_text())
    rows = {row["name"]: row for row in record["variants"]}
    for k in range(15):
        name = f"v{k}"
        record["variants"].append({**rows["B"], "name": name, "title": f"soft gate with the ablation number {k}"})
        (folder / "runs" / name).symlink_to(folder / "runs" / "BCD"[k % 3])
    (folder / "study.json").write_text(json.dumps(record))
    for path in {each.resolve() for each in folder.glob("runs/*/*/results.json")}:
        data = json.loads(path.read_text())
        for k in range(5):
            data["metrics"][f"m{k}"] = {"unit": "dB", "better": "lower", "role": "other", "mean": k + 0.01 * k}
        path.write_text(json.dumps(data))
    table = write_study(folder)
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert (len(table.rows), len(table.columns)) == (19, 10)
    assert 400 < words.unfolded_words(page) <= 900
    assert words.unfolded_words(page.replace("<details>", "<details open>")) > 3000, "or nothing is folded"


@pytest.mark.slow
def test_underpowered_is_said_once(tmp_path):
    folder = write_study_folder(tmp_path / "study", failed=None)
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**record, "seeds": [0, 1, 2]}))
    write_study(folder)
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert page.count("underpowered") == 1
    whole = write_study_folder(tmp_path / "whole", failed=None)
    write_study(whole)
    assert "underpowered" not in (whole / "study.html").read_text(encoding="utf-8")


def test_one_seed_gives_no_verdict_on_a_difference():
    said = claims(study(BASE, LONG, seeds=1))
    assert said[0] == "Best m1: title of long"
    assert said[1] == "title of long minus title of base: one seed, so no verdict"
    assert not any("difference from" in claim or "beat" in claim for claim in said)
