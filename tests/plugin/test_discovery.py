"""Plugins are loaded each on its own; a broken one is set aside with its cause and stops no other."""

import inspect
import subprocess
import sys

import pytest

import moeframe_builtin
import moeframe_pretrained
from moeframe.plugin.discovery import KINDS, Provider, installed_entry_points, load_plugins
from moeframe.plugin.hookspecs import HOOKS

CAUSES = {
    "raises_on_import": "RuntimeError: libfoo is missing install it",
    "exits_on_import": "it called exit(3) while it was loaded",
    "exits_in_hook": "it called exit('no licence') while it was loaded",
    "raises_in_hook": "KeyError: 'gate'",
    "wrong_signature": "hookimpl definition: moeframe_gates(registry) Argument(s) {'registry'} are declared in the "
    "hookimpl but can not be found in the hookspec",
    "misspelt_hook": "unknown hook 'moeframe_gate'",
    "without_hooks": "it implements no moeframe hook; mark a function such as moeframe_gates with @hookimpl",
    "other_api": "made for plugin API 2, this moeframe has 1; install a matching release",
    "returns_tuple": "moeframe_gates returned tuple, not a list of classes",
    "returns_none": "moeframe_gates returned NoneType, not a list of classes",
    "returns_instance": "moeframe_gates returned 42, which is not a subclass of Gate",
    "returns_other_kind": "returned <class 'returns_other_kind.Lost'>, which is not a subclass of Gate",
    "renames_its_kind": "Odd.KIND is 'routers'; leave it as Gate has it",
    "returns_abstract": "Unfinished does not implement forward",
    "without_config": 'Nameless.Config needs a name: type: Literal["its_name"] = "its_name"',
    "name_is_no_literal": 'Anything.Config needs a name: type: Literal["its_name"] = "its_name"',
    "foreign_config": "Foreign.Config must be a subclass of Gate.Config",
    "setting_is_no_value": "Computed.Config must hold plain values only: Cannot generate a JsonSchema for",
    "not_a_file": "FileNotFoundError: [Errno 2] No such file or directory",
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_broken_plugin_is_set_aside_with_its_distribution_and_cause(on_disk, name):
    loaded = load_plugins([on_disk(name)])
    assert loaded.provided == ()
    (broken,) = loaded.broken
    assert broken.provider == Provider(f"dist-{name}", "1.2", name)
    assert CAUSES[name] in broken.cause
    assert str(broken) == f"dist-{name} 1.2 (entry point '{name}'): {broken.cause}"
    assert "\n" not in str(broken)


def test_every_fake_plugin_on_disk_is_tested(on_disk, request):
    names = {path.stem for path in request.path.parents[1].glob("plugins_on_disk/*.py")}
    good = {name for name in names if not load_plugins([on_disk(name)]).broken}
    assert good == {"good_gate", "good_slicer", "stated_expert", "claims_even", "claims_twice"}
    assert names - good == CAUSES.keys() - {"not_a_file"}


def test_broken_plugins_stop_none_of_the_others(on_disk):
    names = list(CAUSES)
    points = [on_disk(name) for name in [*names[:9], "good_gate", *names[9:], "good_slicer"]]
    loaded = load_plugins(points)
    assert [item.component.name() for item in loaded.provided] == ["even", "thirds"]
    assert [broken.provider.entry_point for broken in loaded.broken] == names


def test_a_misspelt_hook_does_not_spoil_the_plugins_around_it(on_disk):
    loaded = load_plugins([on_disk("misspelt_hook"), on_disk("good_gate"), on_disk("misspelt_hook", "other")])
    assert [item.component.name() for item in loaded.provided] == ["even"]
    assert len(loaded.broken) == 2


def test_interrupting_the_loading_is_not_mistaken_for_a_broken_plugin(on_disk):
    class Interrupted:
        name = "interrupted"
        dist = None

        def load(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_plugins([Interrupted()])


def test_an_entry_point_without_distribution_is_named_unknown(on_disk):
    point = on_disk("raises_on_import")
    (broken,) = load_plugins([type(point)(point.name, None)]).broken
    assert str(broken.provider) == "unknown ?"


def test_the_built_in_components_come_through_an_entry_point_like_any_other():
    points = [point for point in installed_entry_points() if point.dist.name == "moeframe"]
    assert {point.load() for point in points} == {moeframe_builtin, moeframe_pretrained}
    assert load_plugins(points).broken == ()


@pytest.mark.slow
def test_experts_from_elsewhere_are_listed_without_what_they_need_to_load():
    script = (
        "import sys\n"
        "from moeframe.plugin.registry import Registry\n"
        "assert {'diffusers', 'edm', 'vdm'} <= set(Registry.installed().names('experts'))\n"
        "print([name for name in ('diffusers', 'msgpack', 'lmdb', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_every_hook_is_documented_and_has_a_kind(hook):
    assert hook.__doc__
    assert hook.__name__.removeprefix("moeframe_") in KINDS


def test_every_kind_has_a_hook_and_an_abstract_class():
    assert {name.removeprefix("moeframe_") for name in HOOKS} == set(KINDS)
    assert all(inspect.isabstract(base) for base in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_in_plugin_supplies_every_kind(registry, kind):
    assert any(item.provider.distribution == "moeframe" for item in registry.components(kind))
