"""Study files: the shipped ones, and what is said of those that are wrong."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_study import STUDY, changed, study_of

from moeframe import cli
from moeframe.assembly import assemble
from moeframe.errors import SpecError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.model.flops import count_flops, on_meta
from moeframe.plugin.registry import Registry
from moeframe.studies.cost import training_calls

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(ROOT.glob("specs/studies/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_validates(path):
    study = study_of(path)
    assert len(study.seeds) >= 3
    assert study.baseline == "A"
    names = {variant.name for variant in study.variants}
    assert names >= {*"ABCD", "random_per_sample", "random_per_step", "uniform", "alignment_without_balance"}
    assert names >= {"without_load", "without_ent", "mutual_info", "cut_to_top2", "K2", "K8", "switch"}
    assert names >= {"same_parameters", "same_compute", "switch_compute"}
    assert study.variant("C").spec.gate.type == "top_k"
    assert study.variant("B").spec.gate.type == study.variant("D").spec.gate.type == "softmax"
    assert not [variant.name for variant in study.variants if variant.same_as], "each variant runs once"
    assert {("B", "same_parameters"), ("B", "same_compute"), ("C", "B"), ("cut_to_top2", "B")} <= set(study.compare)
    assert training_calls(study.variant("same_compute")) == training_calls(study.variant("B"))
    merged = [study.variant(source) for source in study.variant("switch").runs_of.values()]
    assert training_calls(study.variant("switch_compute")) == sum(map(training_calls, merged))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("digits", ImageShape(1, 8, 8, 17)),
        ("photo_patches", ImageShape(3, 16, 16, 256)),
        ("cifar10", ImageShape(3, 32, 32, 256)),
        pytest.param("celeba_hq", ImageShape(3, 256, 256, 256), marks=pytest.mark.slow),
        pytest.param("lsun_church", ImageShape(3, 256, 256, 256), marks=pytest.mark.slow),
    ],
)
def test_the_controls_are_equal_to_a_twentieth_in_what_they_are_named_for(registry, name, image):
    study = study_of(ROOT / f"specs/studies/{name}.yaml")
    parameters, flops = {}, {}
    for variant in ("B", "same_parameters", "same_compute"):
        spec = study.variant(variant).spec
        experts = [on_meta(registry.get(Expert, each.type)(each, image=image)) for each in spec.expert_configs]
        parameters[variant] = sum(value.numel() for expert in experts for value in expert.parameters())
        per_call = count_flops(experts[0], variant, image)
        flops[variant] = per_call * training_calls(study.variant(variant))
    assert parameters["same_parameters"] == pytest.approx(parameters["B"], rel=0.05)
    assert flops["same_parameters"] == pytest.approx(flops["B"], rel=0.05)
    assert flops["same_compute"] == pytest.approx(flops["B"], rel=0.05)


def test_validate_takes_a_study_and_run_says_what_it_is(study_file):
    result = CliRunner().invoke(cli.main, ["validate", str(study_file)])
    assert result.output.endswith("little.yaml: valid: 'little', 5 variants, 2 seeds\n"), result.output
    result = CliRunner().invoke(cli.main, ["run", str(study_file)])
    assert result.exit_code == 2
    assert f"error: {study_file}: is a study file; use `moeframe study {study_file}`" in result.output
    changed(study_file, variants={"soft": {"set": {"gaet": None}}})
    result = CliRunner().invoke(cli.main, ["validate", str(study_file)])
    assert result.exit_code == 2
    assert "unknown key 'gaet'; did you mean 'gate'?" in result.output


@pytest.mark.parametrize("name", ["B", "K2", "K8", "same_compute", "uniform"])
def test_variants_begin_with_the_same_weights_where_shapes_allow(name):
    study, registry = study_of(ROOT / "specs/studies/digits.yaml"), Registry.installed()

    def first_expert(variant):
        expert = assemble(study.variant(variant).spec, registry, 3).model.experts[0]
        return {name: tensor.clone() for name, tensor in expert.state_dict().items()}

    own, single = first_expert(name), first_expert("A")
    assert own.keys() == single.keys()
    assert all(torch.equal(tensor, single[key]) for key, tensor in own.items())


# --- files that are wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"baseline": "sofd"},
            ":6:11: baseline: unknown baseline 'sofd'; did you mean 'soft'? variants: soft, sparse, cut, again",
        ),
        ({"seeds": [1, 1]}, ":3:1: seeds: seeds are repeated: [1, 1]; name each seed once"),
        (
            {"compare": [["soft", "sparze"]]},
            ": compare.0.1: unknown variant 'sparze'; did you mean 'sparse'? variants: ",
        ),
        ({"compare": [["soft", "soft"]]}, ": compare.0: 'soft' is compared with itself; name two variants"),
        ({"set": {"seeds": [5]}}, ": set.seeds: all variants have the study's seeds: set seeds at the top of the file"),
        (
            {"variants": {"soft": {}, "x": {"set": {"name": "y"}}}},
            "variants.x.set.name: a run is named after study and variant; give the variant another name or title",
        ),
        (
            {"variants": {"soft": {"title": "One"}, "x": {"title": "One"}}},
            ":22:12: variants.x.title: variant 'soft' has the title 'One' too; give each its own",
        ),
        (
            {"variants": {"soft": {}, "x": {"weights_of": "soft", "set": {"training.steps": 9}}}},
            "variants.x.set: training.steps differs from 'soft', whose weights it uses; keep training.steps",
        ),
        (
            {"variants": {"soft": {}, "x": {"weights_of": "soft", "set": {"gate.width": 9}}}},
            "variants.x.set: gate.width differs from 'soft', whose weights it uses; keep gate.width equal",
        ),
        (
            {"variants": {"soft": {}, "x": {"weights_of": "soft", "set": {"experts.0.channels": 16}}}},
            "variants.x.set: experts differs from 'soft', whose weights it uses; keep experts equal",
        ),
        ({"set": {"traning.steps": 9}}, ": set: traning: unknown key 'traning'; did you mean 'training'?"),
        ({"variants": {"soft": {}, "a b": {}}}, "variants.a b"),
        (
            {"variants": {"soft": {}, "x": {"set": {"gaet.k": 2}}}},
            "variants.x: gaet: unknown key 'gaet'; did you mean 'gate'?",
        ),
        ({"variants": {"soft": {}, "x": {"set": {"gate.kk": 2}}}}, "variants.x: gate.kk: unknown key 'kk'"),
        ({"variants": {"soft": {}, "x": {"sett": {}}}}, "variants.x.sett: unknown key 'sett'; did you mean 'set'?"),
        (
            {"variants": {"soft": {}, "x": {"weights_of": "sift"}}},
            "variant 'x' uses the weights of 'sift', which does not train; did you mean 'soft'? variants: ",
        ),
        ({"spec": "none.yaml"}, "no file"),
        ({"launcher": {"type": "slurm"}}, "launcher.type: unknown launcher 'slurm'; installed: local"),
        ({"launcher": {"type": "local", "jobs": 0}}, "launcher.jobs: must be greater than or equal to 1, not 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_with_a_study_is_said_with_its_place(study_file, changes, found):
    with pytest.raises(SpecError) as caught:
        study_of(changed(study_file, **changes))
    assert found in str(caught.value)
    assert str(caught.value).startswith(str(study_file.parent)), "the place comes first"
    assert len(caught.value.problems) == 1, "each is said once"


def test_two_variants_of_one_name_are_a_duplicate_key(study_file):
    study_file.write_text(STUDY + "  soft: {}\n")
    with pytest.raises(SpecError, match=r"little\.yaml:23:3: variants\.soft: duplicate key 'soft'"):
        study_of(study_file)


def test_a_variant_may_name_its_group(study_file):
    text = study_file.read_text()
    study_file.write_text(text.replace("sparse: {set", "sparse: {group: ablation, set"))
    groups = {variant.name: variant.group for variant in study_of(study_file).variants}
    assert groups["sparse"] == "ablation"
    assert groups["soft"] is None, "it then follows from the number of experts"
    study_file.write_text(text.replace("sparse: {set", "sparse: {group: ablations, set"))
    with pytest.raises(SpecError, match=r"variants\.sparse\.group: .*'mixture', 'control' or 'ablation'"):
        study_of(study_file)
