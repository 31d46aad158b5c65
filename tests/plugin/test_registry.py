"""The registry: name -> component, with suggestions, conflicts and the plugins that may be to blame."""

import pytest

from moeframe.errors import PluginError
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.slicer import Slicer
from moeframe.plugin.discovery import KINDS, installed_entry_points
from moeframe.plugin.registry import SINGULAR, Registry


@pytest.fixture
def registry_of(on_disk):
    """The registry of some fake plugins."""
    return lambda *names: Registry.installed([on_disk(name) for name in names])


def test_a_component_is_found_by_kind_and_name(registry_of):
    registry = registry_of("good_gate", "good_slicer")
    assert registry.names("gates") == ["even"]
    assert registry.get(Gate, "even").summary() == "The same weight for every expert."
    assert registry.get(Slicer, "thirds").name() == "thirds"
    assert registry.components("slicers")[0].provider.distribution == "dist-good_slicer"


def test_an_unknown_name_gets_a_suggestion_and_the_installed_names(registry_of):
    with pytest.raises(PluginError) as caught:
        registry_of("good_gate").get(Gate, "evn")
    assert str(caught.value) == "unknown gate 'evn'; did you mean 'even'?; installed: even"


def test_a_name_unlike_any_other_gets_no_suggestion(registry_of):
    with pytest.raises(PluginError) as caught:
        registry_of("good_gate").get(Gate, "zzz")
    assert str(caught.value) == "unknown gate 'zzz'; installed: even"


def test_without_any_component_of_a_kind_the_error_says_so(registry_of):
    with pytest.raises(PluginError) as caught:
        registry_of("good_slicer").get(Gate, "softmax")
    assert str(caught.value) == "unknown gate 'softmax'; no gate is installed"


def test_an_unknown_name_names_the_broken_plugins_that_may_supply_it(registry_of):
    with pytest.raises(PluginError) as caught:
        registry_of("good_gate", "raises_on_import", "exits_on_import").get(Gate, "mine")
    assert str(caught.value) == (
        "unknown gate 'mine'; installed: even; "
        "a plugin that may supply it is broken: dist-raises_on_import 1.2 (entry point 'raises_on_import'): "
        "RuntimeError: libfoo is missing install it; "
        "a plugin that may supply it is broken: dist-exits_on_import 1.2 (entry point 'exits_on_import'): "
        "it called exit(3) while it was loaded"
    )


@pytest.mark.parametrize("names", [("good_gate", "claims_even"), ("claims_even", "good_gate")])
def test_a_name_of_two_plugins_belongs_to_neither_and_both_are_named(registry_of, names):
    registry = registry_of(*names)
    expected = "gate 'even' is supplied by dist-claims_even 1.2 and by dist-good_gate 1.2; uninstall one of them"
    assert registry.names("gates") == []
    assert registry.conflicts() == [expected]
    with pytest.raises(PluginError) as caught:
        registry.get(Gate, "even")
    assert str(caught.value) == expected


def test_a_name_twice_in_one_plugin_names_that_plugin_once(registry_of):
    with pytest.raises(PluginError) as caught:
        registry_of("claims_twice").get(Gate, "twin")
    assert str(caught.value) == "gate 'twin' is supplied 2 times by dist-claims_twice 1.2; report it to its authors"


def test_two_plugins_may_use_one_name_for_different_kinds(registry_of):
    assert registry_of("good_gate", "good_slicer").conflicts() == []


def test_a_conflict_does_not_touch_other_names(registry_of):
    registry = registry_of("good_gate", "claims_even", "good_slicer")
    assert registry.get(Slicer, "thirds")


def test_a_stranger_that_takes_a_built_in_name_is_reported(on_disk):
    points = [*installed_entry_points(), on_disk("good_gate"), on_disk("claims_even")]
    registry = Registry.installed(points)
    assert "softmax" in registry.names("gates")
    assert len(registry.conflicts()) == 1


def test_every_kind_has_a_singular_name():
    assert set(SINGULAR) == set(KINDS)
    assert [SINGULAR["losses"], SINGULAR["gates"]] == ["loss", "gate"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_installed_component_has_a_summary_and_a_schema(registry, kind):
    for item in registry.components(kind):
        assert len(item.component.summary()) > 10, item.component
        assert item.component.config_schema()["properties"]["type"]["const"] == item.component.name()


def test_nothing_installed_here_is_broken_or_in_conflict(registry):
    assert registry.broken == ()
    assert registry.conflicts() == []
