"""The product of slicers: mixed radix over parts that know nothing of each other, and what does not fit together."""

import json

import pytest
import torch
from pydantic import ValidationError

from moeframe.assembly import assemble
from moeframe.errors import DataError
from moeframe.interfaces.component import SpecFacts
from moeframe.interfaces.dataset import InMemoryExamples
from moeframe.interfaces.slicer import Slicer
from moeframe.randomness import Streams
from moeframe.spec.binding import bind
from moeframe.testing import check_slicer
from moeframe_builtin.slicers.attribute import Attribute
from moeframe_builtin.slicers.class_group import ClassGroup
from moeframe_builtin.slicers.color_variance import ColorVariance
from moeframe_builtin.slicers.lighting import Lighting
from moeframe_builtin.slicers.product import Product
from moeframe_builtin.slicers.semantic import Semantic
from moeframe_builtin.slicers.texture import Texture


def config(*parts, counts) -> Product.Config:
    return Product.Config(slicers=parts, counts=counts)


def made(settings: Product.Config, seed: int = 0) -> Product:
    n_slices = int(torch.tensor(settings.counts).prod())
    return Product(settings, n_slices=n_slices, streams=Streams(seed))


def fitted(settings: Product.Config, train: InMemoryExamples, seed: int = 0) -> Product:
    slicer = made(settings, seed)
    slicer.fit(train)
    return slicer


def noise(n: int = 120, seed: int = 0) -> InMemoryExamples:
    """Images of brightness and contrast that differ from image to image, in three classes."""
    generator = torch.Generator().manual_seed(seed)
    shade, contrast = torch.rand(2, n, 1, 1, 1, generator=generator)
    pixels = torch.rand(n, 3, 8, 8, generator=generator) * contrast + shade * (1 - contrast)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return InMemoryExamples((pixels * 255).long(), labels, ("coat", "bag", "shoe"))


THREE = config(Lighting.Config(), Texture.Config(), ClassGroup.Config(), counts=(2, 3, 2))


def test_a_slice_is_the_mixed_radix_number_of_the_slices_of_the_parts_alone():
    train, test = noise(), noise(seed=1)
    found = fitted(THREE, train).assign(test)
    digits = []
    for part, count in zip((Lighting, Texture, ClassGroup), THREE.counts, strict=True):
        alone = part(part.Config(), n_slices=count, streams=Streams(7))
        alone.fit(train)
        digits.append(alone.assign(test))
    assert torch.equal(found, (digits[0] * 3 + digits[1]) * 2 + digits[2])
    assert len(set(found.tolist())) == 12


def test_a_slice_is_named_after_the_slice_of_each_part():
    parts = (ClassGroup.Config(groups=((0, 2), (1,))), Attribute.Config(groups=(("Smiling",),)))
    train = InMemoryExamples(
        torch.zeros(4, 1, 2, 2, dtype=torch.long),
        torch.tensor([0, 1, 2, 1]),
        ("coat", "bag", "shoe"),
        {"Smiling": torch.tensor([1.0, 1.0, 0.0, 0.0])},
    )
    slicer = fitted(config(*parts, counts=(2, 2)), train)
    assert slicer.slice_names == ["coat, shoe & Smiling", "coat, shoe & other", "bag & Smiling", "bag & other"]
    assert slicer.assign(train).tolist() == [0, 2, 1, 3]


NESTED = config(config(Lighting.Config(), ColorVariance.Config(), counts=(2, 2)), ClassGroup.Config(), counts=(4, 3))


@pytest.mark.parametrize("settings", [THREE, NESTED], ids=["three parts", "a product in a product"])
def test_the_state_of_every_part_survives_json(settings):
    train, test = noise(), noise(seed=1)
    slicer = fitted(settings, train)
    other = made(settings, seed=3)
    other.restore(json.loads(json.dumps(slicer.state())))
    assert other.state() == slicer.state()
    assert other.slice_names == slicer.slice_names
    assert len(set(other.slice_names)) == 12
    assert torch.equal(other.assign(test), slicer.assign(test))


def test_the_keys_of_the_state_begin_with_the_number_of_the_part():
    assert list(fitted(NESTED, noise()).state()) == [
        "0/0/level_thresholds",
        "0/1/thresholds",
        "1/slice_of_class",
        "1/label_names",
    ]


def test_eleven_parts_do_not_mix_their_states():
    thresholds = [Lighting.Config(), *[ClassGroup.Config(groups=((0, 1, 2),))] * 9, ColorVariance.Config()]
    settings = config(*thresholds, counts=(2, *[1] * 9, 2))
    slicer = fitted(settings, noise())
    other = made(settings)
    other.restore(slicer.state())
    assert torch.equal(other.assign(noise()), slicer.assign(noise()))


def test_a_product_in_a_product_is_the_flat_product():
    flat = config(Lighting.Config(), ColorVariance.Config(), ClassGroup.Config(), counts=(2, 2, 3))
    assert torch.equal(fitted(NESTED, noise()).assign(noise()), fitted(flat, noise()).assign(noise()))


def test_equal_parts_draw_from_streams_of_their_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(Semantic, "fit", lambda self, train: seeds.append(self.streams.seed))
    for seed in (0, 1, 1):
        fitted(config(Semantic.Config(), Semantic.Config(), counts=(2, 2)), noise(), seed)
    assert len(set(seeds)) == 4
    assert seeds[2:4] == seeds[4:]


def test_it_keeps_the_contract_of_slicers_with_parts_of_every_sort():
    hair = Attribute.Config(groups=(("Black_Hair",),))
    check_slicer(Product, config(hair, Semantic.Config(), ClassGroup.Config(), counts=(2, 2, 3)), n_experts=12)
    check_slicer(Product, NESTED, n_experts=12)


# what does not fit together


def conflicts(settings: Product.Config, n_experts: int) -> list[tuple[str, str]]:
    return list(settings.conflicts(SpecFacts(n_experts=n_experts)))


def test_the_product_of_the_counts_must_be_the_number_of_experts():
    assert conflicts(THREE, 12) == []
    assert conflicts(THREE, 8) == [
        ("counts", "2 x 3 x 2 = 12 slices for 8 experts; use 12 experts or counts whose product is 8")
    ]


def test_there_must_be_a_count_for_each_slicer():
    assert conflicts(config(Lighting.Config(), Texture.Config(), counts=(4,)), 4) == [
        (
            "counts",
            "1 counts for 2 slicers; give one count per slicer, whose product is the number of experts, 4",
        )
    ]


def test_what_a_part_has_against_its_count_names_the_part_and_its_key_at_any_depth():
    inner = config(Lighting.Config(by="both"), Texture.Config(), counts=(3, 1))
    words = (
        "both: 2 directions x K/2 levels need an even number of experts, not 3; "
        "use an even number, or by: level or by: direction"
    )
    part = f"slicer 0 ('lighting', for which its count 3 is the number of experts), by: {words}"
    assert conflicts(inner, 3) == [("slicers", part)]
    outer = config(ColorVariance.Config(), inner, counts=(2, 3))
    assert conflicts(outer, 6) == [
        ("slicers", f"slicer 1 ('product', for which its count 3 is the number of experts), slicers: {part}")
    ]
    assert [key for key, _ in conflicts(outer, 7)] == ["counts", "slicers"]


@pytest.mark.parametrize("counts", [(0, 2), (-1, 2), (1.5, 2)])
def test_a_count_is_a_positive_whole_number(counts):
    with pytest.raises(ValidationError, match="counts"):
        config(Lighting.Config(), Texture.Config(), counts=counts)


def test_one_part_is_no_product():
    with pytest.raises(ValidationError, match="at least 2 items"):
        config(Lighting.Config(), counts=(2,))


def test_an_abstract_config_is_no_part():
    with pytest.raises(AssertionError, match="a part is the Config of its own slicer"):
        made(config(Slicer.Config(type="lighting"), Texture.Config(), counts=(2, 2)))


def test_the_engine_names_an_empty_combination(registry, tiny_text):
    import yaml

    same = {"type": "product", "slicers": [{"type": "lighting"}, {"type": "lighting"}], "counts": [2, 2]}
    experts = [{"type": "unet", "copies": 4, "channels": 4, "channel_multipliers": [1]}]
    data = {**yaml.safe_load(tiny_text), "slicer": same, "experts": experts}
    with pytest.raises(DataError) as error:
        assemble(bind(data, registry), registry, seed=0)
    assert str(error.value).startswith("slicer: 'product' leaves slice 1, 2 of 4 without training images (sizes [32, 0")
