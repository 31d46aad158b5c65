"""A sweep over the switch point: likelihood against quality, compared with each expert alone."""

import json

import pytest
from click.testing import CliRunner

import moeframe
from moeframe import cli
from moeframe.errors import InputError
from moeframe.report.run.trade_off import SweepPoint, SweptSeed
from moeframe.runs.remeasure import evaluate
from moeframe.runs.sweep import _comparisons, sweep
from moeframe.stats.comparison import compare_paired, holm


@pytest.fixture(scope="module")
def swept(spec):
    folder = spec.parent / "swept"
    arguments = ["merge", str(spec), "--out", str(folder), "--sweep", "3", "--quality", "psnr"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.mark.slow
def test_the_command_warns_of_a_non_commercial_licence_on_standard_error(swept):
    assert "warning: expert 1 (stated): its weights are licensed under CC BY-NC 4.0" in swept[1].stderr
    assert "warning" not in swept[1].stdout


def test_a_sweep_has_both_experts_the_merge_and_every_place(swept):
    folder, result = swept
    stored = json.loads((folder / "sweep.json").read_text())
    (eta,) = moeframe.load(folder).gate.switches
    assert [(point["name"], point["eta"]) for point in stored["points"]] == [
        ("expert 0 alone", None),
        ("expert 1 alone", None),
        ("merge", eta),
        ("switch", -3.0),
        ("switch", 0.0),
        ("switch", 3.0),
    ]
    assert "likelihood against quality by switch point" in result.stdout
    assert f"sweep: {folder / 'sweep.json'}, {folder / 'sweep.svg'}" in result.stdout.replace("\n", "")
    assert (folder / "sweep.svg").read_text().startswith("<svg")
    assert "Likelihood against quality" in (folder / "report.html").read_text()
    assert stored["quality_name"] == "psnr"
    assert "continuous bound on 32 test images, one draw each" in stored["how"]


@pytest.mark.slow
def test_the_points_of_a_sweep_are_what_merging_there_measures(swept, spec, tmp_path):
    folder, _ = swept
    points = json.loads((folder / "sweep.json").read_text())["points"]
    for point in points[3:5]:
        found = moeframe.merge(spec, overrides=[f"gate.eta={point['eta']}"], out=tmp_path / str(point["eta"]))
        assert found.metrics["psnr"].mean == pytest.approx(point["quality"], abs=1e-6)
        assert abs(found.metrics["bits_per_dim"].mean - point["bits_per_dim"]) < 4 * point["standard_error"]
    alone = ["experts=[{type: stated, best_at: -2.0}]", "gate=null"]
    found = moeframe.merge(spec, overrides=alone, out=tmp_path / "alone")
    assert found.metrics["psnr"].mean == pytest.approx(points[0]["quality"], abs=1e-6)


def test_the_pareto_set_of_a_sweep_is_marked(swept):
    points = json.loads((swept[0] / "sweep.json").read_text())["points"]
    for point in points:
        beaten = any(
            other["bits_per_dim"] <= point["bits_per_dim"]
            and other["quality"] >= point["quality"]
            and (other["bits_per_dim"], other["quality"]) != (point["bits_per_dim"], point["quality"])
            for other in points
        )
        assert point["pareto"] is not beaten
    assert 0 < sum(point["pareto"] for point in points) < len(points)


@pytest.mark.slow
def test_evaluating_again_drops_a_sweep_with_other_settings(swept, spec, tmp_path):
    moeframe.merge(spec, out=tmp_path / "run")
    sweep(tmp_path / "run", 1, quality="psnr")
    evaluate(tmp_path / "run", overrides=["sampler.steps=3"])
    assert not (tmp_path / "run/sweep.json").exists()
    assert "Likelihood against quality" not in (tmp_path / "run/report.html").read_text()


def test_a_sweep_needs_a_metric_of_the_spec(merged):
    with pytest.raises(InputError) as caught:
        sweep(merged[0], 2)
    assert str(caught.value) == (
        "the spec of 'merged' has no metric 'frechet' for sample quality; choose one of bits_per_dim, "
        "network_calls, psnr with --quality, or add the metric to the spec"
    )


@pytest.mark.slow
def test_a_sweep_needs_two_experts_and_a_gate_that_switches(spec, tmp_path):
    few = ["metrics=[{type: psnr, images: 4}]"]
    moeframe.merge(spec, overrides=[*few, "gate={type: uniform}"], out=tmp_path / "uniform")
    with pytest.raises(InputError, match="gate 'uniform' does not switch between experts by log-SNR alone"):
        sweep(tmp_path / "uniform", 2, quality="psnr")
    moeframe.merge(spec, overrides=[*few, "experts.0.copies=2"], out=tmp_path / "three")
    with pytest.raises(InputError, match="a sweep moves the switch between two experts; 'merged' has 3"):
        sweep(tmp_path / "three", 2, quality="psnr")


def test_a_sweep_refuses_an_expert_whose_numbers_bound_nothing(spec, tmp_path):
    moeframe.merge(spec, overrides=["experts.1.sees_neighbours=true"], out=tmp_path / "run")
    with pytest.raises(InputError, match=r"^expert 1 alone has no bits/dim to sweep: .*batch"):
        sweep(tmp_path / "run", 2, quality="psnr")
    assert not (tmp_path / "run/sweep.json").exists()


@pytest.mark.slow
def test_a_sweep_over_several_seeds_gives_means_and_compares_the_merge_with_each_expert_seed_by_seed(spec, tmp_path):
    seeds = [0, 4, 7]
    moeframe.merge(spec, overrides=[f"seeds={seeds}"], out=tmp_path / "several")
    found = sweep(tmp_path / "several", 1, quality="psnr")
    points = {point.name: point for point in found.points}
    for point in found.points:
        assert [one.seed for one in point.seeds] == seeds
        assert point.bits_per_dim == pytest.approx(sum(one.bits_per_dim for one in point.seeds) / 3)
        low, high = point.bits_interval
        assert low < point.bits_per_dim < high
    for seed, own in zip(seeds, points["merge"].seeds, strict=True):
        moeframe.merge(spec, overrides=[f"seeds=[{seed}]"], out=tmp_path / str(seed))
        (merge,) = (point for point in sweep(tmp_path / str(seed), 1, quality="psnr").points if point.name == "merge")
        assert (merge.bits_per_dim, merge.quality, merge.eta) == (own.bits_per_dim, own.quality, own.eta)
    assert [(one.against, one.figure, one.n) for one in found.comparisons] == [
        ("expert 0 alone", "bits_per_dim", 3),
        ("expert 0 alone", "quality", 3),
        ("expert 1 alone", "bits_per_dim", 3),
        ("expert 1 alone", "quality", 3),
    ]
    for one in found.comparisons:
        theirs = points[one.against]
        expected = getattr(points["merge"], one.figure) - getattr(theirs, one.figure)
        assert one.difference == pytest.approx(expected, abs=1e-12)
        assert (one.verdict, one.p_adjusted) == ("underpowered", None), "three seeds cannot show a difference"
    assert "Underpowered: fewer than 6 seeds." in (tmp_path / "several/report.html").read_text()


def test_the_comparisons_of_a_sweep_are_corrected_for_their_number():
    noise = [0.0, 0.1, -0.1, 0.05, -0.05, 0.02]

    def point(name, bits, quality):
        seeds = tuple(
            SweptSeed(seed=i, eta=None, bits_per_dim=b, quality=q)
            for i, (b, q) in enumerate(zip(bits, quality, strict=True))
        )
        return SweepPoint(name=name, eta=None, bits_per_dim=0, standard_error=0, quality=0, pareto=False, seeds=seeds)

    merge = point("merge", noise, noise)
    first = point("expert 0 alone", [1.3 * n + 0.1 for n in noise], [2 * n + 1 for n in noise])
    second = point("expert 1 alone", [n + 0.01 * (-1) ** i for i, n in enumerate(noise)], [2 * n + 2 for n in noise])
    found = _comparisons({one.name: one for one in (merge, first, second)}, "lower")
    raw = [
        compare_paired([getattr(s, figure) for s in merge.seeds], [getattr(s, figure) for s in other.seeds], "lower")
        for other in (first, second)
        for figure in ("bits_per_dim", "quality")
    ]
    assert [one.p_adjusted for one in found] == pytest.approx(holm([one.p_value for one in raw]))
    assert found[2].verdict == "no difference shown"
