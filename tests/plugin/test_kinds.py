"""A kind of component is declared once; the command line, hooks, spec sections and contract checks follow."""

import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from moeframe import cli, testing
from moeframe.plugin.discovery import KINDS
from moeframe.plugin.hookspecs import HOOKS
from moeframe.plugin.kinds import ALL_KINDS, Kind
from moeframe.plugin.registry import SINGULAR
from moeframe.spec.schema import LIST_SECTIONS, OPTIONAL_SECTIONS, SECTIONS, RunSpec

ROOT = Path(__file__).parents[2]

INTERFACE = '''
"""Augmentation: changes training images."""

from typing import ClassVar

from moeframe.interfaces.component import Component


class Augmentation(Component):
    """Changes training images."""

    KIND: ClassVar[str] = "augmentations"

    def __init__(self, config):
        self.config = config
'''

PLUGIN = '''
"""Supplies one augmentation."""

from typing import Literal

from augmentation import Augmentation

from moeframe.interfaces.component import Component
from moeframe.plugin.hookspecs import hookimpl


class Mirror(Augmentation):
    """Mirrors an image."""

    class Config(Component.Config):
        type: Literal["mirror"] = "mirror"


@hookimpl
def moeframe_augmentations():
    """One."""
    return [Mirror]
'''

SESSION = '''
"""Everything that follows from a row of the table, with one row more."""

import sys
from types import SimpleNamespace

from moeframe.plugin import kinds

row = kinds.Kind(
    "augmentations", "augmentation", "augmentation:Augmentation", "changes of training images",
    section="augment", is_list=True, optional=True,
)
kinds.ALL_KINDS = (*kinds.ALL_KINDS, row)

from moeframe.plugin.registry import Registry

point = SimpleNamespace(
    name="mirror", dist=SimpleNamespace(name="mirrors", version="1.0"), load=lambda: __import__("mirror_plugin")
)
registry = Registry.installed([point])
assert not registry.broken, registry.broken
assert registry.names("augmentations") == ["mirror"]
print(registry.why_not("augmentations", "miror"))

from moeframe.spec.schema import LIST_SECTIONS

print(LIST_SECTIONS["augment"])

from moeframe.testing import check_component

check_component(registry.components("augmentations")[0].component)

from moeframe import cli

import moeframe.plugin.registry

moeframe.plugin.registry.Registry.installed = lambda: registry
cli.main(["plugins", "augmentations"])
'''


def test_one_row_and_an_interface_add_a_kind(tmp_path):
    for name, text in (("augmentation", INTERFACE), ("mirror_plugin", PLUGIN), ("session", SESSION)):
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run([sys.executable, tmp_path / "session.py"], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "unknown augmentation 'miror'; did you mean 'mirror'?; installed: mirror",
        "augmentations",
        "augmentations",
        "  mirror           Mirrors an image.  [mirrors 1.0]",
    ]


def missing_fields(kinds: tuple[Kind, ...]) -> list[str]:
    """What RunSpec lacks, or has as another type, for the sections of these kinds."""
    found = []
    for kind in kinds:
        if kind.section is None:
            continue
        field = RunSpec.model_fields.get(kind.section)
        if field is None:
            found.append(f"RunSpec lacks the field {kind.section} of the kind {kind.plural}")
        elif kind.load_class().Config not in plain_types(field.annotation):
            found.append(f"RunSpec.{kind.section} does not hold {kind.load_class().__name__}.Config")
        elif kind.is_list is not (get_origin(field.annotation) is list):
            found.append(f"RunSpec.{kind.section} must{'' if kind.is_list else ' not'} be a list")
        elif kind.optional is field.is_required():
            found.append(f"RunSpec.{kind.section} must{' not' if kind.optional else ''} be required")
    return found


def plain_types(annotation: Any) -> set[Any]:
    """The classes in an annotation, however they are wrapped."""
    if get_origin(annotation) in (list, Annotated, types.UnionType, Union):
        return set().union(*(plain_types(part) for part in get_args(annotation)))
    return {annotation}


def test_run_spec_has_a_typed_field_for_the_section_of_each_kind():
    assert missing_fields(ALL_KINDS) == []


def test_a_kind_whose_section_run_spec_lacks_is_reported():
    made_up = Kind("augmentations", "augmentation", "moeframe.interfaces.gate:Gate", "made up", section="augment")
    assert missing_fields((*ALL_KINDS, made_up)) == ["RunSpec lacks the field augment of the kind augmentations"]


def test_a_field_of_another_type_than_the_table_says_is_reported():
    required = Kind("gates", "gate", "moeframe.interfaces.gate:Gate", "made up", section="gate")
    single = Kind("losses", "loss", "moeframe.interfaces.loss:Loss", "made up", section="objective")
    foreign = Kind("losses", "loss", "moeframe.interfaces.loss:Loss", "made up", section="sampler")
    assert missing_fields((required, single, foreign)) == [
        "RunSpec.gate must be required",
        "RunSpec.objective must not be a list",
        "RunSpec.sampler does not hold Loss.Config",
    ]


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.plural)
def test_what_follows_from_the_table_knows_the_kind(kind):
    assert kind.plural == kind.load_class().KIND
    assert KINDS[kind.plural] is kind.load_class()
    assert SINGULAR[kind.plural] == kind.singular
    assert kind.plural in cli.KINDS
    assert HOOKS[kind.hook].__doc__ == f"{kind.plural.capitalize()}: {kind.summary}."
    assert {**SECTIONS, **LIST_SECTIONS}.get(kind.section) == (kind.plural if kind.section else None)
    assert (kind.section in OPTIONAL_SECTIONS) is (kind.optional and not kind.is_list)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.plural)
def test_the_contract_of_each_kind_is_public(kind):
    check = kind.load_contract()
    assert check is getattr(testing, f"check_{kind.singular}")
    assert check.__name__ in testing.__all__


def test_the_pages_name_every_kind():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    words = set(re.findall(r"\w+", " ".join(page.read_text() for page in pages)))
    assert [kind.plural for kind in ALL_KINDS if kind.plural not in words] == []
