"""Slices by groups of attributes or classes."""

import json

import pytest
import torch
from pydantic import ValidationError
from sliced_images import fitted, made, pictured, random_images

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.randomness import Streams
from moeframe_builtin.slicers.attribute import Attribute
from moeframe_builtin.slicers.class_group import ClassGroup

# attribute

HAIR = {
    "Black_Hair": [1, 0, 0, 0, 0, 1, 0],
    "Blond_Hair": [0, 1, 0, 0, 0, 0, 1],
    "Brown_Hair": [0, 0, 1, 0, 0, 1, 0],
    "Gray_Hair": [0, 0, 0, 1, 0, 0, 1],
}


def with_hair(absent: int = 0, **more: list[float]) -> InMemoryExamples:
    listed = {name: [value or absent for value in values] for name, values in HAIR.items()}
    return pictured(random_images(7), **{**listed, **more})


@pytest.mark.parametrize("absent", [0, -1])
@pytest.mark.parametrize(("several", "of_two"), [("first", [0, 1]), ("other", [4, 4])])
def test_hair_colours_are_the_default_groups_with_a_rule_for_several_and_none(absent, several, of_two):
    slicer = fitted(Attribute, 5, with_hair(absent), several=several)
    assert slicer.assign(with_hair(absent)).tolist() == [0, 1, 2, 3, 4, *of_two]
    assert slicer.slice_names == ["Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "other"]


@pytest.mark.parametrize(
    ("n_slices", "of_groups", "names"),
    [
        (4, [0, 1, 2, 3, 2], ["Black_Hair", "Blond_Hair", "Brown_Hair or other", "Gray_Hair"]),
        (2, [0, 1, 0, 1, 0], ["Black_Hair or Brown_Hair or other", "Blond_Hair or Gray_Hair"]),
    ],
)
def test_balancing_puts_whole_groups_together_largest_first(n_slices, of_groups, names):
    slicer = fitted(Attribute, n_slices, with_hair(), balance="quantile")  # groups of 2, 2, 1, 1, 1
    assert slicer.assign(with_hair()).tolist() == [*of_groups, of_groups[0], of_groups[1]]
    assert slicer.slice_names == names
    again = Attribute(slicer.config, n_slices=n_slices, streams=Streams(1))
    again.restore(json.loads(json.dumps(slicer.state())))
    bald = pictured(random_images(3), **{name: [0, 0, 0] for name in HAIR})  # other data moves nothing
    assert again.assign(bald).tolist() == [of_groups[4]] * 3


def test_groups_without_images_cannot_fill_a_slice():
    with pytest.raises(DataError) as error:
        fitted(Attribute, 3, with_hair(Hat=[0] * 7), groups=[["Hat"], ["Black_Hair"]], balance="quantile")
    assert str(error.value) == (
        "attribute: 3 slices need as many groups with images; the training data has Hat 0, Black_Hair 2, other 5; "
        "use fewer experts or other groups"
    )


def test_two_attributes_of_one_group_are_not_several_groups():
    groups = [["Black_Hair", "Brown_Hair"], ["Blond_Hair"]]
    slicer = fitted(Attribute, 3, with_hair(), groups=groups, several="other")
    assert slicer.assign(with_hair()).tolist() == [0, 1, 0, 2, 2, 0, 1]
    assert slicer.slice_names == ["Black_Hair or Brown_Hair", "Blond_Hair", "other"]


@pytest.mark.parametrize(
    ("wanted", "hint"), [("Blonde_Hair", "did you mean 'Blond_Hair'? "), ("Zzz", ""), ("blond_hair", None)]
)
def test_an_attribute_that_does_not_exist_is_refused_with_those_that_do(wanted, hint):
    with pytest.raises(DataError) as error:
        fitted(Attribute, 2, with_hair(), groups=[[wanted]])
    hint = "did you mean 'Blond_Hair'? " if hint is None else hint
    assert str(error.value) == (
        f"attribute: the data has no attribute '{wanted}'; {hint}it has Black_Hair, Blond_Hair, Brown_Hair, Gray_Hair"
    )


def test_data_without_attributes_is_refused():
    with pytest.raises(DataError) as error:
        fitted(Attribute, 5, pictured(random_images(3)))
    assert str(error.value) == (
        "attribute: the data has no attributes, so no 'Black_Hair'; use a dataset that has them, or another slicer"
    )


@pytest.mark.parametrize("value", [0.5, 2.0, float("nan")])
def test_an_attribute_that_is_no_yes_or_no_is_refused(value):
    with pytest.raises(DataError) as error:
        fitted(Attribute, 2, with_hair(Age=[0, 1, -1, value, 0, 0, 0]), groups=[["Age"]])
    assert str(error.value) == (
        f"attribute: 'Age' of image 3 is {value:g}; it must be 1 where present and 0 or -1 where absent"
    )


def test_groups_and_other_must_be_as_many_as_experts_and_no_attribute_twice():
    assert list(Attribute.Config().conflicts(SpecFacts(n_experts=5))) == []
    assert list(Attribute.Config().conflicts(SpecFacts(n_experts=4))) == [
        (
            "groups",
            "4 groups and 'other' make 5 slices for 4 experts; use 5 experts or give 3 groups, "
            "or `balance: quantile`, which puts groups together",
        )
    ]
    assert list(Attribute.Config(balance="quantile").conflicts(SpecFacts(n_experts=2))) == []
    assert list(Attribute.Config(balance="quantile").conflicts(SpecFacts(n_experts=6))) == [
        ("groups", "4 groups and 'other' are too few for 6 slices; use at most 5 experts or give 5 groups")
    ]
    assert list(Attribute.Config(groups=[["a", "b"], ["a"]]).conflicts(SpecFacts(n_experts=3))) == [
        ("groups", "'a' is listed 2 times; list each attribute once")
    ]
    for groups in ([], [["a"], []]):
        with pytest.raises(ValidationError, match="at least 1 item"):
            Attribute.Config(groups=groups)


# class_group


def test_class_groups_are_named_by_their_labels_once_restored_too():
    train = InMemoryExamples(random_images(4), torch.tensor([0, 1, 2, 0]), ("coat", "bag", "shoe"))
    slicer = fitted(ClassGroup, 2, train, groups=[[0, 2], [1]])
    assert slicer.slice_names == ["coat, shoe", "bag"]
    other = made(ClassGroup, 2, groups=[[0, 2], [1]])
    other.restore(json.loads(json.dumps(slicer.state())))
    assert other.slice_names == ["coat, shoe", "bag"]
