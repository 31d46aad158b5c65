"""The built-in slicers: partitions learned on train, and what a user reads when groups are wrong."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.slicer import Slicer
from moeframe.randomness import Streams
from moeframe_builtin.slicers.class_group import ClassGroup
from moeframe_builtin.slicers.color_variance import ColorVariance, color_variance
from moeframe_builtin.slicers.support.grouping import balanced_groups, natural_groups


def labelled(labels: list[int], n_classes: int) -> InMemoryExamples:
    names = tuple(str(i) for i in range(n_classes))
    return InMemoryExamples(torch.zeros(len(labels), 1, 2, 2, dtype=torch.int16), torch.tensor(labels), names)


def pictured(images: torch.Tensor) -> InMemoryExamples:
    return InMemoryExamples(images, torch.zeros(len(images), dtype=torch.long))


def spread(values: list[int]) -> InMemoryExamples:
    """One image per value v: half its pixels 0, half v, so a larger v is a larger colour variance."""
    images = torch.zeros(len(values), 1, 2, 2, dtype=torch.long)
    images[:, :, 0] = torch.tensor(values).reshape(-1, 1, 1)
    return pictured(images)


def class_group(k: int, **settings) -> ClassGroup:
    return ClassGroup(ClassGroup.Config(**settings), n_slices=k, streams=Streams(0))


def variance_slicer(k: int) -> ColorVariance:
    return ColorVariance(ColorVariance.Config(), n_slices=k, streams=Streams(0))


def restored(slicer: Slicer) -> Slicer:
    """A new slicer with the state of this one, taken through JSON."""
    other = type(slicer)(slicer.config, n_slices=slicer.n_slices, streams=Streams(1))
    other.restore(json.loads(json.dumps(slicer.state())))
    return other


# class_group


def test_given_groups_send_each_class_to_its_slice():
    slicer = class_group(2, groups=[[0, 3], [2, 1]])
    train = labelled([0, 1, 2, 3, 0], 4)
    slicer.fit(train)
    assert slicer.assign(train).tolist() == [0, 1, 1, 0, 0]


def test_classes_are_balanced_largest_first():
    slicer = class_group(2)
    train = labelled([0] * 5 + [1] * 9 + [2] * 5 + [3], 4)
    slicer.fit(train)
    assert slicer.state() == {"slice_of_class": [1, 0, 1, 0], "label_names": ["0", "1", "2", "3"]}
    assert slicer.assign(train).bincount().tolist() == [10, 10]


def test_natural_groups_are_runs_of_classes_whatever_they_hold():
    slicer = class_group(2, balance="natural")
    slicer.fit(labelled([0] * 50 + [1, 3, 4], 6))  # class 2 and 5 are in the test split alone
    assert slicer.state()["slice_of_class"] == [0, 0, 1, 1, 1, 1]
    with pytest.raises(DataError, match="class_group: 5 slices need as many classes, but the training data has 4;"):
        class_group(5, balance="natural").fit(labelled([0, 1, 3, 4], 6))


@given(n=st.integers(1, 40), k=st.integers(1, 8))
def test_natural_groups_partition_the_classes_and_differ_by_one_class_at_most(n, k):
    groups = natural_groups(list(range(n)), k)
    assert [number for group in groups for number in group] == list(range(n))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_groups_and_balance_at_once_are_refused():
    config = ClassGroup.Config(groups=[[0], [1]], balance="natural")
    [(key, message)] = config.conflicts(SpecFacts(n_experts=2))
    assert (key, message) == (
        "balance",
        "groups already say which classes go together; leave out either groups or balance",
    )


@given(counts=st.lists(st.integers(0, 100), min_size=1, max_size=20), k=st.integers(1, 8))
def test_balanced_groups_partition_the_classes_within_the_largest_class(counts, k):
    groups = balanced_groups(counts, k)
    assert len(groups) == k
    assert sorted(number for group in groups for number in group) == list(range(len(counts)))
    sizes = [sum(counts[number] for number in group) for group in groups]
    assert max(sizes) - min(sizes) <= max(counts)


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([[0, 1], [1, 2]], "class 1 is in groups 0, 1"),
        ([[0, 0, 1], [2]], "class 0 is in groups 0, 0"),
        ([[0, 1], [2, 7]], "no such class: 7 (the data has classes 0..2)"),
        ([[0, 1], [2, -1]], "no such class: -1 (the data has classes 0..2)"),
        ([[0], [2]], "in no group: class 1"),
        (
            [[0, 5], [0]],
            "class 0 is in groups 0, 1; no such class: 5 (the data has classes 0..2); in no group: class 1, 2",
        ),
    ],
)
def test_groups_that_are_no_partition_are_refused(groups, problem):
    with pytest.raises(DataError) as error:
        class_group(2, groups=groups).fit(labelled([0, 1, 2], 3))
    assert str(error.value) == f"class_group: {problem}; each class belongs to exactly one group"


def test_more_slices_than_classes_are_refused():
    with pytest.raises(DataError) as error:
        class_group(4).fit(labelled([0, 1, 1, 4], 5))
    assert str(error.value) == (
        "class_group: 4 slices need as many classes, but the training data has 3; "
        "use at most 3 experts or another slicer"
    )


def test_a_class_unseen_in_fitting_is_refused():
    slicer = class_group(2)
    slicer.fit(labelled([0, 1], 2))
    with pytest.raises(DataError) as error:
        slicer.assign(labelled([0, 3, 2], 4))
    assert str(error.value) == "class_group: class 2, 3 is not among the 2 of the training data"


def test_groups_must_be_as_many_as_experts():
    config = ClassGroup.Config(groups=[[0, 1], [2]])
    assert list(config.conflicts(SpecFacts(n_experts=2))) == []
    assert list(config.conflicts(SpecFacts(n_experts=3))) == [
        ("groups", "2 groups for 3 experts; give one group of classes per expert")
    ]
    assert list(ClassGroup.Config().conflicts(SpecFacts(n_experts=3))) == []


# color_variance


def test_color_variance_sums_the_variances_of_the_channels():
    images = torch.randint(0, 256, (5, 3, 4, 6), generator=torch.Generator().manual_seed(0))
    expected = images.double().var(dim=(2, 3), correction=0).sum(dim=1)
    assert color_variance(images).tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_flat_image_has_no_color_variance_whatever_its_color():
    assert color_variance(torch.tensor([3, 200, 90])[None, :, None, None].expand(1, 3, 4, 4)).tolist() == [0.0]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_distinct_values_are_cut_into_equal_slices_in_order(k):
    order = torch.randperm(26, generator=torch.Generator().manual_seed(0))
    train = spread((order + 1).tolist())
    slicer = variance_slicer(k)
    slicer.fit(train)
    ids = slicer.assign(train)
    sizes = ids.bincount(minlength=k)
    assert sizes.max() - sizes.min() <= 1
    assert ids[order.argsort()].diff().min() >= 0


@settings(deadline=None)
@given(values=st.lists(st.integers(0, 6), min_size=1, max_size=40), k=st.integers(1, 5))
def test_equal_values_share_a_slice_and_larger_ones_never_go_below(values, k):
    train = spread(values)
    slicer = variance_slicer(k)
    slicer.fit(train)
    ids = slicer.assign(train).tolist()
    assert all(0 <= i < k for i in ids)
    assert all(a <= b for v, a in zip(values, ids, strict=True) for w, b in zip(values, ids, strict=True) if v <= w)


@settings(deadline=None)
@given(scale=st.integers(1, 4000), seed=st.integers(0, 100))
def test_slices_do_not_depend_on_the_scale_of_the_pixels(scale, seed):
    images = torch.randint(0, 8, (30, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    ids = []
    for train in (pictured(images), pictured(images * scale)):
        slicer = variance_slicer(3)
        slicer.fit(train)
        ids.append(slicer.assign(train))
    assert torch.equal(*ids)


def test_thresholds_come_from_train_alone_and_an_image_is_sliced_on_its_own():
    slicer = variance_slicer(2)
    slicer.fit(spread([1, 2, 3, 4]))
    assert slicer.assign(spread([100, 3, 2, 0])).tolist() == [1, 1, 0, 0]
    assert slicer.assign(spread([100])).tolist() == [1]
    assert slicer.assign(spread([])).tolist() == []


# both


@pytest.mark.parametrize("make", [class_group, variance_slicer])
def test_state_survives_json_bit_for_bit(make):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 5, 5), generator=generator)
    labels = torch.randint(0, 6, (40,), generator=generator)
    train = InMemoryExamples(images, labels, tuple("abcdef"))
    slicer = make(3)
    slicer.fit(train)
    other = restored(slicer)
    assert other.state() == slicer.state()
    assert torch.equal(other.assign(train), slicer.assign(train))


@pytest.mark.parametrize("make", [class_group, variance_slicer])
def test_fitting_leaves_no_slice_empty_when_values_are_distinct(make):
    images = torch.arange(1, 13)[:, None, None, None] * torch.tensor([[0, 1], [0, 1]])
    train = InMemoryExamples(images.reshape(12, 1, 2, 2), torch.arange(12) % 5)
    slicer = make(4)
    slicer.fit(train)
    assert slicer.assign(train).bincount(minlength=4).min() > 0
